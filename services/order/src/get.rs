//! Read one order, or what happened to it.

use chassis::rpc::page::Page;
use chassis::{Caller, Unexpected, timestamp};
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::OrderId;
use crate::order::Order;
use crate::service::Service;

pub(crate) async fn get(
    service: &Service,
    caller: &Caller,
    request: GetOrderRequest,
) -> Result<GetOrderResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let mut db = service.db.acquire().await?;
    let order = Order::find(&mut db, order_id, caller.owner()?).await?.ok_or(Error::OrderNotFound)?;
    Ok(GetOrderResponse { order: Some(order.to_proto()) })
}

pub(crate) async fn list_events(
    service: &Service,
    caller: &Caller,
    request: ListOrderEventsRequest,
) -> Result<ListOrderEventsResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let page = Page::<i64>::parse(request.page_size, &request.page_token, &format!("events of {order_id}"))?;
    let mut db = service.db.acquire().await?;
    Order::find(&mut db, order_id, caller.owner()?).await?.ok_or(Error::OrderNotFound)?;
    let mut rows = sqlx::query_as!(
        StoredEvent,
        r#"select order_id as "order_id: _", version, event_id, type as event_type, payload, actor, causation_id, occurred_at
           from order_event where order_id = $1 and version > $2 order by version limit $3"#,
        order_id as OrderId,
        page.after.unwrap_or_default(),
        page.limit(),
    )
    .fetch_all(&mut *db)
    .await?;
    let next_page_token = page.cut(&mut rows, |row| row.version);
    let entries = rows.iter().map(|row| {
        let event = OrderEvent::decode(&*row.payload).map_err(Unexpected::from)?;
        Ok(row.to_entry(&event))
    });
    Ok(ListOrderEventsResponse { events: entries.collect::<Result<_, Error>>()?, next_page_token })
}

/// A row of `order_event`.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) order_id: OrderId,
    pub(crate) version: i64,
    pub(crate) event_id: Uuid,
    pub(crate) event_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) actor: String,
    pub(crate) causation_id: Option<Uuid>,
    pub(crate) occurred_at: OffsetDateTime,
}

impl StoredEvent {
    /// `event` is its payload.
    pub(crate) fn to_entry(&self, event: &OrderEvent) -> OrderEventEntry {
        OrderEventEntry {
            version: self.version,
            event_id: self.event_id.to_string(),
            r#type: self.event_type.rsplit('.').next().unwrap_or_default().to_owned(),
            time: Some(timestamp(self.occurred_at)),
            actor: self.actor.clone(),
            causation_id: self.causation_id.map(|id| id.to_string()).unwrap_or_default(),
            reason: event.event.clone().map(reason).unwrap_or_default(),
        }
    }
}

fn reason(event: Event) -> String {
    match event {
        Event::OrderRejected(it) => it.reason,
        Event::OrderPaymentFailed(it) => it.reason,
        Event::OrderCancelled(it) => it.reason().as_str_name().to_owned(),
        Event::OrderExpired(it) => it.reason,
        Event::OrderRefundFailed(it) => it.reason,
        _ => String::new(),
    }
}
