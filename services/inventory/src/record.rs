//! Records changes of reservations: stock, rows, history and events, with one statement for all tables and one for the events,
//! however many there are.

use std::collections::{BTreeMap, HashMap};

use chassis::Unexpected;
use chassis::boot::db::column;
use chassis::event::outbox::{Batch, Event as NewEvent};
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event::Event;
use contracts::souk::inventory::v1::*;
use prost::Message;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::apply::OrderUpdate;
use crate::ids::{OrderId, UserId};
use crate::low_stock;
use crate::reservation::{Reservation, State, Step};
use crate::service::Service;
use crate::stock::{Change, HOLD, Line, LockedStock, RELEASE, SELL, Shortage, UNSELL};
use crate::take_back::{self, CustomerReturn};

/// What one transaction records, while reservations and stock are locked.
pub(crate) struct Changes<'a> {
    service: &'a Service,
    stock: LockedStock,
    /// How many units a customer holds of a SKU; counted only where there is a cap.
    held: HashMap<(UserId, String), i64>,
    history: Vec<(OrderId, i64, State)>,
    returns: Vec<(OrderId, CustomerReturn)>,
    events: Batch,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(service: &'a Service, stock: LockedStock, held: HashMap<(UserId, String), i64>) -> Self {
        Self { service, stock, held, history: vec![], returns: vec![], events: Batch::default() }
    }

    pub(crate) fn record(&mut self, update: &OrderUpdate, reservation: &mut Reservation, step: Step) {
        let (state, event) = match step {
            Step::Hold => self.hold(update, reservation),
            Step::Sell => {
                self.change_stock(reservation, SELL);
                (State::Sold, Some(Event::StockSold(StockSold {})))
            }
            Step::Release => {
                self.change_stock(reservation, RELEASE);
                (State::Released, Some(Event::StockReleased(StockReleased {})))
            }
            Step::Unsell => {
                self.change_stock(reservation, UNSELL);
                (State::Returned, Some(Event::StockReturned(StockReturned {})))
            }
            Step::TakeBack => return self.take_back(update, reservation),
            // No stock changes, so nothing is published.
            Step::Tombstone => (State::Released, None),
        };
        reservation.is_new |= reservation.state.is_none();
        reservation.is_changed = true;
        reservation.state = Some(state);
        reservation.order_version = update.version;
        reservation.version += i64::from(event.is_some());
        self.history.push((update.order_id, reservation.version, state));
        if let Some(event) = event {
            self.publish(update, reservation.version, event);
        }
    }

    /// Holds all lines of an order, or none.
    fn hold(&mut self, update: &OrderUpdate, reservation: &mut Reservation) -> (State, Option<Event>) {
        reservation.lines.clone_from(&update.lines);
        reservation.user_id = update.user_id;
        let shortages = update.lines.iter().filter_map(|line| self.shortage(line, update.user_id));
        let shortages: Vec<_> = shortages.map(Shortage::into_proto).collect();
        if shortages.is_empty() {
            self.change_stock(reservation, HOLD);
            (State::Held, Some(Event::StockReserved(StockReserved {})))
        } else {
            (State::Rejected, Some(Event::StockRejected(StockRejected { shortages })))
        }
    }

    /// Why a line cannot be held, if it cannot.
    fn shortage(&self, line: &Line, user_id: Option<UserId>) -> Option<Shortage> {
        let (requested, available) = (line.quantity, self.stock.available(&line.sku));
        let short = |available, reason| Some(Shortage { sku: line.sku.clone(), requested, available, reason });
        if available < i64::from(requested) {
            return short(available, "STOCK_SHORT");
        }
        let held = self.held.get(&(user_id?, line.sku.clone())).copied().unwrap_or_default();
        let room = (self.service.max_units? - held).max(0);
        if room < i64::from(requested) { short(room, "HOLD_CAP") } else { None }
    }

    /// The reservation stays SOLD, with fewer units.
    fn take_back(&mut self, update: &OrderUpdate, reservation: &mut Reservation) {
        let Some(returned) = &update.returned else { return };
        for item in &returned.items {
            self.stock.add(&item.line, item.change());
            *reservation.taken_back.entry(item.line.sku.clone()).or_default() += item.line.quantity;
        }
        reservation.is_changed = true;
        reservation.order_version = reservation.order_version.max(update.version);
        self.returns.push((update.order_id, returned.clone()));
    }

    fn change_stock(&mut self, reservation: &Reservation, change: Change) {
        for line in &reservation.lines {
            let line = &Line { sku: line.sku.clone(), quantity: reservation.left(line) };
            self.stock.add(line, change);
            if let Some(user_id) = reservation.user_id {
                *self.held.entry((user_id, line.sku.clone())).or_default() +=
                    change.reserved * i64::from(line.quantity);
            }
        }
    }

    fn publish(&mut self, update: &OrderUpdate, version: i64, event: Event) {
        let event_type = event.event_type();
        let payload = InventoryEvent { order_id: update.order_id.to_string(), event: Some(event) };
        self.events.push(NewEvent {
            event_id: self.service.clock.new_id(),
            topic: Event::TOPIC,
            key: update.order_id.0,
            version,
            event_type,
            payload: payload.encode_to_vec(),
            actor: "service:inventory".to_owned(),
            causation_id: update.event_id,
            occurred_at: self.service.clock.now(),
        });
    }

    pub(crate) async fn save(
        self,
        tx: &mut PgConnection,
        reservations: &BTreeMap<OrderId, Reservation>,
    ) -> Result<(), Unexpected> {
        if self.history.is_empty() && self.returns.is_empty() {
            return Ok(());
        }
        let now = self.service.clock.now();
        write(tx, reservations, &self.stock.changes, &self.history, now).await?;
        if !self.returns.is_empty() {
            take_back::write(tx, &self.returns, now).await?;
        }
        let mut events = self.events;
        low_stock::record(tx, self.service, &self.stock.fallen(), "service:inventory", &mut events).await?;
        Ok(events.append(tx).await?)
    }
}

/// For the limit see [`Reservation::lock_all`].
async fn write(
    tx: &mut PgConnection,
    reservations: &BTreeMap<OrderId, Reservation>,
    stock: &BTreeMap<String, Change>,
    history: &[(OrderId, i64, State)],
    now: OffsetDateTime,
) -> Result<(), Unexpected> {
    let stock = Vec::from_iter(stock);
    let changed: Vec<_> = reservations.iter().filter(|(_, reservation)| reservation.is_changed).collect();
    let new = changed.iter().filter(|(_, reservation)| reservation.is_new);
    let lines: Vec<_> =
        new.flat_map(|(id, reservation)| reservation.lines.iter().map(move |line| (**id, line))).collect();
    sqlx::query!(
        "with moved as (
           update stock set available = stock.available + sum.available, reserved = stock.reserved + sum.reserved,
             sold = stock.sold + sum.sold, written_off = stock.written_off + sum.written_off
           from (select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $17::bigint[])
               limit cardinality($1))
             as sum (sku, available, reserved, sold, written_off)
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
        &column(&stock, |(sku, _)| sku.as_str()) as &[&str],
        &column(&stock, |(_, sum)| sum.available),
        &column(&stock, |(_, sum)| sum.reserved),
        &column(&stock, |(_, sum)| sum.sold),
        now,
        &column(&changed, |(order_id, _)| **order_id) as &[OrderId],
        &column(&changed, |(_, reservation)| reservation.user_id) as &[Option<UserId>],
        &column(&changed, |(_, reservation)| reservation.state.map(State::name)) as &[Option<&str>],
        &column(&changed, |(_, reservation)| reservation.version),
        &column(&changed, |(_, reservation)| reservation.order_version),
        &column(&lines, |(order_id, _)| *order_id) as &[OrderId],
        &column(&lines, |(_, line)| line.sku.as_str()) as &[&str],
        &column(&lines, |(_, line)| line.quantity),
        &column(history, |step| step.0) as &[OrderId],
        &column(history, |step| step.1),
        &column(history, |step| step.2.name()) as &[&str],
        &column(&stock, |(_, sum)| sum.written_off),
    )
    .execute(tx)
    .await?;
    Ok(())
}
