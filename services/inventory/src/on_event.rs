//! What an order's events do to the stock it holds.
//!
//! Every transaction locks reservations before stock, and each in the order of ids and SKUs, so that no two wait for each
//! other in a circle. Events that share a transaction would break that rule if each locked its own, one after another:
//! therefore `prepare` locks what all of them will change before the first is handled.

use std::sync::Arc;

use chassis::consume::{HandleError, Handler, Record};
use chassis::outbox::{self, Event};
use contracts::souk::inventory::v1::inventory_event::Event as Kind;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::order_event::Event as OrderKind;
use contracts::souk::order::v1::{OrderEvent, OrderLine};
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Service;
use crate::reservation::{Decision, Heard, State, decide};
use crate::stock::{self, Line, Shortage};

pub(crate) struct Orders(pub(crate) Arc<Service>);

const WANTED: [&str; 5] = [
    "souk.order.v1.OrderPlaced",
    "souk.order.v1.OrderConfirmed",
    "souk.order.v1.OrderPaymentFailed",
    "souk.order.v1.OrderCancelled",
    "souk.order.v1.OrderExpired",
];

#[tonic::async_trait]
impl Handler for Orders {
    fn wants(&self, kind: &str) -> bool {
        WANTED.contains(&kind)
    }

    async fn prepare(&self, tx: &mut PgConnection, records: &[&Record]) -> Result<(), HandleError> {
        // One that cannot be read locks nothing; it fails when its turn comes.
        let news: Vec<_> = records.iter().filter_map(|record| read(record).ok()).collect();
        let orders: Vec<_> = news.iter().map(|news| news.order_id).collect();
        let skus: Vec<_> = news.into_iter().flat_map(|news| news.lines).map(|line| line.sku).collect();
        sqlx::query!("select order_id from reservation where order_id = any($1) order by order_id for update", &orders)
            .fetch_all(&mut *tx)
            .await?;
        Ok(stock::lock_all(tx, &orders, &skus).await?)
    }

    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        apply(&self.0, tx, read(record)?).await
    }

    fn committed(&self) {
        self.0.published.wake();
    }
}

/// What an order says of itself: in an event, or when it was asked.
pub(crate) struct News {
    pub(crate) order_id: Uuid,
    /// The order's version with it.
    pub(crate) version: i64,
    pub(crate) heard: Heard,
    /// What a placed order wants; empty otherwise.
    pub(crate) lines: Vec<Line>,
    /// The event, if it was one.
    pub(crate) causation_id: Option<Uuid>,
}

fn read(record: &Record) -> Result<News, HandleError> {
    let event = OrderEvent::decode(&*record.payload)?;
    let order_id = Uuid::parse_str(&event.order_id).map_err(|_| poisoned("its order_id is not a UUID"))?;
    let (heard, lines) = match event.event.ok_or_else(|| poisoned("it says nothing"))? {
        OrderKind::OrderPlaced(placed) => (Heard::Placed, sum(placed.lines)),
        OrderKind::OrderConfirmed(_) => (Heard::Confirmed, vec![]),
        OrderKind::OrderPaymentFailed(_) | OrderKind::OrderCancelled(_) | OrderKind::OrderExpired(_) => {
            (Heard::Ended, vec![])
        }
        _ => return Err(poisoned("its type is not what its headers say")),
    };
    Ok(News { order_id, version: record.version, heard, lines, causation_id: Some(record.event_id) })
}

fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
}

/// One line for each SKU, in the order in which rows are locked.
fn sum(lines: Vec<OrderLine>) -> Vec<Line> {
    let mut sums: Vec<Line> = lines.into_iter().map(|line| Line { sku: line.sku, quantity: line.quantity }).collect();
    sums.sort();
    sums.dedup_by(|next, first| {
        let same = next.sku == first.sku;
        if same {
            first.quantity = first.quantity.saturating_add(next.quantity);
        }
        same
    });
    sums
}

/// Decides, moves units, and says so in an event.
pub(crate) async fn apply(service: &Service, tx: &mut PgConnection, news: News) -> Result<(), HandleError> {
    let row = sqlx::query!(
        "select state, version, order_version from reservation where order_id = $1 for update",
        news.order_id,
    );
    let row = row.fetch_optional(&mut *tx).await?;
    if row.as_ref().is_some_and(|row| news.version <= row.order_version) {
        return Ok(());
    }
    let state = row.as_ref().map(|row| State::parse(&row.state)).transpose()?;
    let version = row.map_or(0, |row| row.version) + 1;
    let (next, kind) = match decide(state, news.heard) {
        // Nothing happened to any stock, so there is nothing to tell.
        Decision::Bar => return Ok(save(service, tx, &news, State::Released, 0).await?),
        Decision::Ignore => return Ok(()),
        Decision::Impossible => {
            let text = format!("a reservation that is {state:?} cannot hear {:?}", news.heard);
            return Err(HandleError::Poisoned(text));
        }
        Decision::Hold => {
            let shortages = stock::lock(tx, &news.lines).await?;
            if shortages.is_empty() {
                stock::hold(tx, &news.lines).await?;
                (State::Held, Kind::StockReserved(StockReserved {}))
            } else {
                let shortages = shortages.into_iter().map(Shortage::into_proto).collect();
                (State::Rejected, Kind::StockRejected(StockRejected { shortages }))
            }
        }
        Decision::Sell => {
            stock::shift(tx, news.order_id, stock::SELL).await?;
            (State::Sold, Kind::StockSold(StockSold {}))
        }
        Decision::Release => {
            stock::shift(tx, news.order_id, stock::RELEASE).await?;
            (State::Released, Kind::StockReleased(StockReleased {}))
        }
        Decision::TakeBack => {
            stock::shift(tx, news.order_id, stock::TAKE_BACK).await?;
            (State::Returned, Kind::StockReturned(StockReturned {}))
        }
    };
    save(service, tx, &news, next, version).await?;
    publish(service, tx, &news, version, kind).await
}

async fn save(service: &Service, tx: &mut PgConnection, news: &News, state: State, version: i64) -> sqlx::Result<()> {
    let (skus, quantities) = stock::split(&news.lines);
    sqlx::query!(
        "with state as (
           insert into reservation (order_id, state, version, order_version, created_at, updated_at, checked_at)
           values ($1, $2, $3, $4, $5, $5, $5)
           on conflict on constraint reservation_order do update
           set state = excluded.state, version = excluded.version, order_version = excluded.order_version,
             updated_at = excluded.updated_at
         ), history as (
           insert into reservation_history (order_id, version, state, at) values ($1, $3, $2, $5)
         )
         insert into reservation_line (order_id, sku, quantity)
         select $1, sku, quantity from unnest($6::text[], $7::integer[]) as line (sku, quantity)",
        news.order_id,
        state.name(),
        version,
        news.version,
        service.clock.now(),
        &skus,
        &quantities,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn publish(
    service: &Service,
    tx: &mut PgConnection,
    news: &News,
    version: i64,
    kind: Kind,
) -> Result<(), HandleError> {
    let name = match &kind {
        Kind::StockReserved(_) => "souk.inventory.v1.StockReserved",
        Kind::StockRejected(_) => "souk.inventory.v1.StockRejected",
        Kind::StockSold(_) => "souk.inventory.v1.StockSold",
        Kind::StockReleased(_) => "souk.inventory.v1.StockReleased",
        Kind::StockReturned(_) => "souk.inventory.v1.StockReturned",
    };
    let payload = InventoryEvent { order_id: news.order_id.to_string(), event: Some(kind) };
    let event = Event {
        event_id: service.clock.new_id(),
        topic: "souk.inventory.v1",
        key: news.order_id,
        version,
        kind: name,
        payload: payload.encode_to_vec(),
        actor: "service:inventory".to_owned(),
        causation_id: news.causation_id,
        occurred_at: service.clock.now(),
    };
    Ok(outbox::append(tx, &event).await?)
}

impl Shortage {
    fn into_proto(self) -> StockShortage {
        StockShortage { sku: self.sku, requested: self.requested, available: self.available }
    }
}
