//! Records facts in the table of orders, in the event store and in the outbox, with one statement for the orders and one for the
//! events, however many there are. The RPC handlers, the job `order.expire` and the event handler all record here.

use std::collections::BTreeMap;

use chassis::boot::db::column;
use chassis::boot::telemetry;
use chassis::event::Record;
use chassis::{Caller, Unexpected, timestamp};
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderEvent, OrderPlaced};
use prost::Message;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cart;
use crate::fact::Fact;
use crate::ids::OrderId;
use crate::order::{IllegalStep, Order};
use crate::parcel;
use crate::service::Service;

/// Who or what caused a fact.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    actor: String,
    /// The event that was consumed, if one was.
    event_id: Option<Uuid>,
}

impl Cause {
    pub(crate) fn caller(caller: &Caller) -> Self {
        Self { actor: caller.actor(), event_id: None }
    }

    pub(crate) fn this_service() -> Self {
        Self { actor: "service:order".to_owned(), event_id: None }
    }

    /// An event of a peer. If the peer acted for a person, that person is the actor here too.
    pub(crate) fn event(record: &Record) -> Self {
        let is_service = record.actor.starts_with("service:");
        let actor = if is_service { "service:order" } else { &record.actor };
        Self { actor: actor.to_owned(), event_id: Some(record.event_id) }
    }
}

/// What one transaction records. The rows of the orders are locked, or inserted by the same transaction.
pub(crate) struct Changes<'a> {
    service: &'a Service,
    orders: BTreeMap<OrderId, Order>,
    /// Whether shipments or returns are among the facts.
    moves_parcels: bool,
    events: Vec<NewEvent>,
}

struct NewEvent {
    order_id: OrderId,
    version: i64,
    event_id: Uuid,
    event_type: &'static str,
    payload: Vec<u8>,
    cause: Cause,
    traceparent: Option<String>,
    occurred_at: OffsetDateTime,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(service: &'a Service) -> Self {
        Self { service, orders: BTreeMap::new(), moves_parcels: false, events: vec![] }
    }

    /// Records that an order was placed.
    pub(crate) fn place(&mut self, order: &Order, cause: Cause) {
        let placed = OrderPlaced {
            lines: order.lines_to_proto(),
            payment_method: order.payment_method.clone(),
            expire_time: Some(timestamp(order.expires_at)),
        };
        self.push(order, Event::OrderPlaced(placed), cause);
    }

    /// Applies a fact to an order, and records it.
    pub(crate) fn record(&mut self, order: &mut Order, fact: &Fact, cause: Cause) -> Result<(), IllegalStep> {
        order.apply(fact, self.service.clock.now())?;
        self.moves_parcels |= fact.moves_parcels();
        self.push(order, fact.to_event(order), cause);
        self.orders.insert(order.order_id, order.clone());
        Ok(())
    }

    fn push(&mut self, order: &Order, event: Event, cause: Cause) {
        let event_type = event.event_type();
        let payload = OrderEvent {
            order_id: order.order_id.to_string(),
            user_id: order.user_id.to_string(),
            total: Some(order.total()),
            event: Some(event),
        };
        self.events.push(NewEvent {
            order_id: order.order_id,
            version: order.version,
            event_id: self.service.clock.new_id(),
            event_type,
            payload: payload.encode_to_vec(),
            cause,
            traceparent: telemetry::traceparent(),
            occurred_at: order.updated_at,
        });
    }

    pub(crate) async fn save(self, db: &mut PgConnection) -> Result<(), Unexpected> {
        if !self.orders.is_empty() {
            Order::save_all(db, &self.orders.values().collect::<Vec<_>>()).await?;
        }
        let ended = self.orders.values().filter(|order| order.state.has_ended());
        let ended: Vec<_> = ended.map(|order| (order.order_id, order.state)).collect();
        if !ended.is_empty() {
            cart::put_back_failed(db, &ended, self.service.clock.now()).await?;
        }
        if self.moves_parcels {
            parcel::save(db, self.orders.values()).await?;
        }
        if !self.events.is_empty() {
            insert_events(db, &self.events).await?;
        }
        Ok(())
    }
}

/// The event store and the outbox get the same events, so that every event that is stored is published.
async fn insert_events(db: &mut PgConnection, events: &[NewEvent]) -> Result<(), Unexpected> {
    sqlx::query!(
        "with event as materialized (
           select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bytea[], $6::text[], $7::uuid[],
             $8::text[], $9::timestamptz[]) with ordinality
             as event (order_id, version, event_id, type, payload, actor, causation_id, traceparent, occurred_at, place)
         ), stored as (
           insert into order_event (order_id, version, event_id, type, payload, actor, causation_id, occurred_at)
           select order_id, version, event_id, type, payload, actor, causation_id, occurred_at from event
         )
         insert into outbox (event_id, topic, key, version, type, payload, actor, causation_id, traceparent, created_at)
         select event_id, $10, order_id, version, type, payload, actor, causation_id, traceparent, occurred_at
         from event order by place",
        &column(events, |event| event.order_id) as &[OrderId],
        &column(events, |event| event.version),
        &column(events, |event| event.event_id),
        &column(events, |event| event.event_type) as &[&str],
        &column(events, |event| event.payload.as_slice()) as &[&[u8]],
        &column(events, |event| event.cause.actor.as_str()) as &[&str],
        &column(events, |event| event.cause.event_id) as &[Option<Uuid>],
        &column(events, |event| event.traceparent.as_deref()) as &[Option<&str>],
        &column(events, |event| event.occurred_at),
        Event::TOPIC,
    )
    .execute(db)
    .await?;
    Ok(())
}
