//! What an order's events do to the stock it holds.
//!
//! Up to 32 events share a transaction, each locking the rows of its SKUs in order. Two transactions over different
//! orders may still lock them crosswise; Postgres then ends one, which is taken in again event by event. The common case of
//! contention, many orders of one SKU, has nothing to cross.

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

    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        let event = OrderEvent::decode(&*record.payload)?;
        let order_id = Uuid::parse_str(&event.order_id).map_err(|_| poisoned("its order_id is not a UUID"))?;
        let (heard, lines) = match event.event.ok_or_else(|| poisoned("it says nothing"))? {
            OrderKind::OrderPlaced(placed) => (Heard::Placed, sum(placed.lines)),
            OrderKind::OrderConfirmed(_) => (Heard::Confirmed, vec![]),
            OrderKind::OrderPaymentFailed(_) | OrderKind::OrderCancelled(_) | OrderKind::OrderExpired(_) => {
                (Heard::Ended, vec![])
            }
            other => return Err(poisoned(&format!("{other:?} was not asked for"))),
        };
        apply(&self.0, tx, order_id, heard, lines, record.event_id).await
    }

    fn committed(&self) {
        self.0.published.wake();
    }
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
            first.quantity += next.quantity;
        }
        same
    });
    sums
}

/// Decides, moves units, and says so in an event. `causation_id` is the event that made it happen.
pub(crate) async fn apply(
    service: &Service,
    tx: &mut PgConnection,
    order_id: Uuid,
    heard: Heard,
    lines: Vec<Line>,
    causation_id: Uuid,
) -> Result<(), HandleError> {
    let row = sqlx::query!("select state, version from reservation where order_id = $1 for update", order_id);
    let row = row.fetch_optional(&mut *tx).await?;
    let state = row.as_ref().map(|row| State::parse(&row.state)).transpose()?;
    let version = row.map_or(0, |row| row.version) + 1;
    let (next, kind) = match decide(state, heard) {
        // Nothing happened to any stock, so there is nothing to tell.
        Decision::Bar => return Ok(save(service, tx, order_id, State::Released, 0, &[]).await?),
        Decision::Ignore => return Ok(()),
        Decision::Impossible => {
            return Err(HandleError::Poisoned(format!("a reservation that is {state:?} cannot hear {heard:?}")));
        }
        Decision::Hold => {
            let shortages = stock::lock(tx, &lines).await?;
            if shortages.is_empty() {
                stock::hold(tx, &lines).await?;
                (State::Held, Kind::StockReserved(StockReserved {}))
            } else {
                let shortages = shortages.into_iter().map(Shortage::into_proto).collect();
                (State::Rejected, Kind::StockRejected(StockRejected { shortages }))
            }
        }
        Decision::Sell => {
            let held = held(tx, order_id).await?;
            stock::sell(tx, &held).await?;
            (State::Sold, Kind::StockSold(StockSold {}))
        }
        Decision::Release => {
            let held = held(tx, order_id).await?;
            stock::release(tx, &held).await?;
            (State::Released, Kind::StockReleased(StockReleased {}))
        }
        Decision::TakeBack => {
            let held = held(tx, order_id).await?;
            stock::take_back(tx, &held).await?;
            (State::Returned, Kind::StockReturned(StockReturned {}))
        }
    };
    save(service, tx, order_id, next, version, &lines).await?;
    publish(service, tx, order_id, version, kind, causation_id).await
}

async fn held(tx: &mut PgConnection, order_id: Uuid) -> sqlx::Result<Vec<Line>> {
    sqlx::query_as!(
        Line,
        r#"select sku, quantity from reservation_line where order_id = $1 order by sku collate "C""#,
        order_id,
    )
    .fetch_all(tx)
    .await
}

async fn save(
    service: &Service,
    tx: &mut PgConnection,
    order_id: Uuid,
    state: State,
    version: i64,
    lines: &[Line],
) -> sqlx::Result<()> {
    let skus: Vec<_> = lines.iter().map(|line| line.sku.clone()).collect();
    let quantities: Vec<_> = lines.iter().map(|line| line.quantity).collect();
    sqlx::query!(
        "with state as (
           insert into reservation (order_id, state, version, created_at, updated_at, checked_at)
           values ($1, $2, $3, $4, $4, $4)
           on conflict on constraint reservation_order do update
           set state = excluded.state, version = excluded.version, updated_at = excluded.updated_at
         ), history as (
           insert into reservation_history (order_id, version, state, at) values ($1, $3, $2, $4)
         )
         insert into reservation_line (order_id, sku, quantity)
         select $1, sku, quantity from unnest($5::text[], $6::integer[]) as line (sku, quantity)",
        order_id,
        state.name(),
        version,
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
    order_id: Uuid,
    version: i64,
    kind: Kind,
    causation_id: Uuid,
) -> Result<(), HandleError> {
    let name = match &kind {
        Kind::StockReserved(_) => "souk.inventory.v1.StockReserved",
        Kind::StockRejected(_) => "souk.inventory.v1.StockRejected",
        Kind::StockSold(_) => "souk.inventory.v1.StockSold",
        Kind::StockReleased(_) => "souk.inventory.v1.StockReleased",
        Kind::StockReturned(_) => "souk.inventory.v1.StockReturned",
    };
    let payload = InventoryEvent { order_id: order_id.to_string(), event: Some(kind) };
    let event = Event {
        event_id: service.clock.new_id(),
        topic: "souk.inventory.v1",
        key: order_id,
        version,
        kind: name,
        payload: payload.encode_to_vec(),
        actor: "service:inventory".to_owned(),
        causation_id: Some(causation_id),
        occurred_at: service.clock.now(),
    };
    Ok(outbox::append(tx, &event).await?)
}

impl Shortage {
    fn into_proto(self) -> StockShortage {
        StockShortage { sku: self.sku, requested: self.requested, available: self.available }
    }
}
