//! What becomes of the stock that orders hold, when there is news of them. Decides, moves units, and says so in events.
//!
//! News that share a transaction are one piece of work, with the same few statements whatever their number. A SKU that
//! everybody wants at once has one row, and its lock is held until the commit is on disk: so it is taken last, when all else
//! is known, and what the orders do to it is summed up and written once.
//!
//! Every transaction locks reservations before stock, and each in the order of ids and SKUs, so that no two wait for each
//! other in a circle.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chassis::event::HandleError;
use chassis::event::outbox::{Batch, Event};
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event::Event as Kind;
use contracts::souk::inventory::v1::*;
use prost::Message;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tracing::Span;
use uuid::Uuid;

use crate::Service;
use crate::reservation::{Decision, Heard, State, decide};
use crate::stock::{self, HOLD, Line, Move, RELEASE, SELL, Shelves, Shortage, TAKE_BACK};

/// What an order says of itself: in an event, or when it was asked.
pub(crate) struct News {
    pub(crate) order_id: Uuid,
    /// Whose order it is, if that was said.
    pub(crate) user_id: Option<Uuid>,
    /// The order's version with it.
    pub(crate) version: i64,
    pub(crate) heard: Heard,
    /// What a placed order wants; empty otherwise.
    pub(crate) lines: Vec<Line>,
    /// The event, if it was one.
    pub(crate) causation_id: Option<Uuid>,
    /// What it is a part of.
    pub(crate) span: Span,
}

pub(crate) async fn apply(service: &Service, tx: &mut PgConnection, news: &[News]) -> Result<(), HandleError> {
    let mut reservations = lock(tx, news).await?;
    let wanted = news.iter().flat_map(|news| &news.lines);
    let lines = reservations.values().flat_map(|reservation| &reservation.lines).chain(wanted);
    let skus: BTreeSet<_> = lines.map(|line| line.sku.clone()).collect();
    let skus: Vec<_> = skus.into_iter().collect();
    let shelves = Shelves::lock(tx, &skus).await?;
    let held = match service.max_units {
        Some(_) => {
            let users: Vec<_> = news.iter().filter_map(|news| news.user_id).collect();
            stock::held(tx, &users, &skus).await?
        }
        None => HashMap::new(),
    };
    let mut work = Work { service, shelves, held, history: vec![], told: Batch::default() };
    for news in news {
        let _part_of = news.span.enter();
        work.take(news, reservations.entry(news.order_id).or_default())?;
    }
    if work.history.is_empty() {
        return Ok(());
    }
    reservations.retain(|_, reservation| reservation.changed);
    save(tx, &reservations, &work, service.clock.now()).await?;
    Ok(work.told.append(tx).await?)
}

/// What is held for one order. Of one that there is no news of yet, nothing.
#[derive(Default)]
struct Reservation {
    user_id: Option<Uuid>,
    state: Option<State>,
    version: i64,
    order_version: i64,
    lines: Vec<Line>,
    is_new: bool,
    changed: bool,
}

async fn lock(tx: &mut PgConnection, news: &[News]) -> Result<BTreeMap<Uuid, Reservation>, HandleError> {
    let orders: Vec<_> = news.iter().map(|news| news.order_id).collect();
    let rows = sqlx::query!(
        r#"select order_id, user_id, state, version, order_version,
             array(select sku from reservation_line as line where line.order_id = reservation.order_id order by sku)
               as "skus!",
             array(select quantity from reservation_line as line where line.order_id = reservation.order_id order by sku)
               as "quantities!"
           from reservation where order_id = any($1) order by order_id for update"#,
        &orders,
    );
    let rows = rows.fetch_all(tx).await?.into_iter().map(|row| {
        let lines = row.skus.into_iter().zip(row.quantities);
        let reservation = Reservation {
            user_id: row.user_id,
            state: Some(State::parse(&row.state)?),
            version: row.version,
            order_version: row.order_version,
            lines: lines.map(|(sku, quantity)| Line { sku, quantity }).collect(),
            is_new: false,
            changed: false,
        };
        Ok((row.order_id, reservation))
    });
    rows.collect()
}

/// One transaction's work, while stock is locked.
struct Work<'a> {
    service: &'a Service,
    shelves: Shelves,
    /// By customer and SKU; counted only where there is a cap.
    held: HashMap<(Uuid, String), i64>,
    history: Vec<(Uuid, i64, State)>,
    told: Batch,
}

impl Work<'_> {
    fn take(&mut self, news: &News, reservation: &mut Reservation) -> Result<(), HandleError> {
        let known = reservation.state.map(|state| (state, reservation.order_version));
        let (next, kind) = match decide(known, news.heard, news.version) {
            Decision::Ignore => return Ok(()),
            Decision::Impossible => {
                let text = format!("a reservation that is {:?} cannot hear {:?}", reservation.state, news.heard);
                return Err(HandleError::Poisoned(text));
            }
            // Nothing happened to any stock, so there is nothing to tell.
            Decision::Bar => (State::Released, None),
            Decision::Hold => {
                reservation.lines.clone_from(&news.lines);
                reservation.user_id = news.user_id;
                let shortages: Vec<_> =
                    news.lines.iter().filter_map(|line| self.shortage(line, news.user_id)).collect();
                if shortages.is_empty() {
                    self.shift(reservation, HOLD);
                    (State::Held, Some(Kind::StockReserved(StockReserved {})))
                } else {
                    let shortages = shortages.into_iter().map(Shortage::into_proto).collect();
                    (State::Rejected, Some(Kind::StockRejected(StockRejected { shortages })))
                }
            }
            Decision::Sell => {
                self.shift(reservation, SELL);
                (State::Sold, Some(Kind::StockSold(StockSold {})))
            }
            Decision::Release => {
                self.shift(reservation, RELEASE);
                (State::Released, Some(Kind::StockReleased(StockReleased {})))
            }
            Decision::TakeBack => {
                self.shift(reservation, TAKE_BACK);
                (State::Returned, Some(Kind::StockReturned(StockReturned {})))
            }
        };
        reservation.is_new |= reservation.state.is_none();
        reservation.changed = true;
        reservation.state = Some(next);
        reservation.order_version = news.version;
        reservation.version += i64::from(kind.is_some());
        self.history.push((news.order_id, reservation.version, next));
        if let Some(kind) = kind {
            self.tell(news, reservation.version, kind);
        }
        Ok(())
    }

    fn shift(&mut self, reservation: &Reservation, to: Move) {
        for line in &reservation.lines {
            self.shelves.shift(line, to);
            if let Some(user_id) = reservation.user_id {
                *self.held.entry((user_id, line.sku.clone())).or_default() += to.reserved * i64::from(line.quantity);
            }
        }
    }

    /// Why a line cannot be held, if it cannot.
    fn shortage(&self, line: &Line, user_id: Option<Uuid>) -> Option<Shortage> {
        let (requested, available) = (line.quantity, self.shelves.available(&line.sku));
        let short = |available, reason| Some(Shortage { sku: line.sku.clone(), requested, available, reason });
        if available < i64::from(requested) {
            return short(available, "STOCK_SHORT");
        }
        let held = self.held.get(&(user_id?, line.sku.clone())).copied().unwrap_or_default();
        let room = (self.service.max_units? - held).max(0);
        if room < i64::from(requested) { short(room, "HOLD_CAP") } else { None }
    }

    fn tell(&mut self, news: &News, version: i64, kind: Kind) {
        let event_type = kind.event_type();
        let payload = InventoryEvent { order_id: news.order_id.to_string(), event: Some(kind) };
        self.told.push(Event {
            event_id: self.service.clock.new_id(),
            topic: Kind::TOPIC,
            key: news.order_id,
            version,
            event_type,
            payload: payload.encode_to_vec(),
            actor: "service:inventory".to_owned(),
            causation_id: news.causation_id,
            occurred_at: self.service.clock.now(),
        });
    }
}

impl Shortage {
    fn into_proto(self) -> StockShortage {
        let Self { sku, requested, available, reason } = self;
        StockShortage { sku, requested, available, reason: reason.to_owned() }
    }
}

async fn save(
    tx: &mut PgConnection,
    changed: &BTreeMap<Uuid, Reservation>,
    work: &Work<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let moves: Vec<_> = work.shelves.moves.iter().collect();
    let new = changed.iter().filter(|(_, reservation)| reservation.is_new);
    let lines: Vec<_> = new.flat_map(|(order_id, it)| it.lines.iter().map(move |line| (order_id, line))).collect();
    let states = changed.values().filter_map(|it| it.state.map(State::name));
    sqlx::query!(
        "with moved as (
           update stock set available = stock.available + sum.available, reserved = stock.reserved + sum.reserved,
             sold = stock.sold + sum.sold
           from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as sum (sku, available, reserved, sold)
           where stock.sku = sum.sku
         ), state as (
           insert into reservation
             (order_id, user_id, state, version, order_version, created_at, updated_at, checked_at)
           select order_id, user_id, state, version, order_version, $5, $5, $5
           from unnest($6::uuid[], $7::uuid[], $8::text[], $9::bigint[], $10::bigint[])
             as changed (order_id, user_id, state, version, order_version)
           on conflict on constraint reservation_order do update
           set state = excluded.state, version = excluded.version, order_version = excluded.order_version,
             updated_at = excluded.updated_at
         ), line as (
           insert into reservation_line (order_id, sku, quantity)
           select order_id, sku, quantity from unnest($11::uuid[], $12::text[], $13::integer[])
             as line (order_id, sku, quantity)
         )
         insert into reservation_history (order_id, version, state, at)
         select order_id, version, state, $5 from unnest($14::uuid[], $15::bigint[], $16::text[])
           as step (order_id, version, state)",
        &moves.iter().map(|(sku, _)| (*sku).clone()).collect::<Vec<_>>(),
        &moves.iter().map(|(_, sum)| sum.available).collect::<Vec<_>>(),
        &moves.iter().map(|(_, sum)| sum.reserved).collect::<Vec<_>>(),
        &moves.iter().map(|(_, sum)| sum.sold).collect::<Vec<_>>(),
        now,
        &changed.keys().copied().collect::<Vec<_>>(),
        &changed.values().map(|it| it.user_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &states.collect::<Vec<_>>() as &[&str],
        &changed.values().map(|it| it.version).collect::<Vec<_>>(),
        &changed.values().map(|it| it.order_version).collect::<Vec<_>>(),
        &lines.iter().map(|(order_id, _)| **order_id).collect::<Vec<_>>(),
        &lines.iter().map(|(_, line)| line.sku.clone()).collect::<Vec<_>>(),
        &lines.iter().map(|(_, line)| line.quantity).collect::<Vec<_>>(),
        &work.history.iter().map(|step| step.0).collect::<Vec<_>>(),
        &work.history.iter().map(|step| step.1).collect::<Vec<_>>(),
        &work.history.iter().map(|step| step.2.name()).collect::<Vec<_>>() as &[&str],
    )
    .execute(tx)
    .await?;
    Ok(())
}
