//! Reads the events of watched orders that changed, with one statement for many orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use chassis::{Next, Unexpected};
use contracts::souk::order::v1::OrderEvent;
use prost::Message;

use super::watched::Step;
use crate::get::StoredEvent;
use crate::ids::OrderId;
use crate::order::Order;
use crate::rebuild::fold;
use crate::service::Service;

/// Orders whose events are read at once.
const MAX_ORDERS: usize = 100;

/// One unit of the job `order.watch`, which runs each second and whenever it is woken.
pub(crate) async fn read_changes(service: Arc<Service>) -> Result<Next, Unexpected> {
    if service.watched.must_compare() {
        find_changed(&service).await?;
    }
    let due = service.watched.take_due(MAX_ORDERS);
    if due.is_empty() {
        return Ok(Next::AfterPause);
    }
    let histories = match read(&service, &due).await {
        Ok(histories) => histories,
        Err(error) => {
            service.watched.changed(due);
            return Err(error);
        }
    };
    for (order_id, history) in histories {
        match history {
            Ok(history) => service.watched.deliver(order_id, history),
            Err(why) => {
                tracing::error!(%order_id, why, "the events of a watched order cannot be applied; its streams end");
                service.watched.give_up(order_id);
            }
        }
    }
    Ok(Next::AtOnce)
}

/// Finds changes of which there was no notification.
async fn find_changed(service: &Service) -> Result<(), Unexpected> {
    let watched = service.watched.all();
    if watched.is_empty() {
        return Ok(());
    }
    let versions = sqlx::query!(
        r#"select order_id as "order_id: OrderId", version from "order" where order_id = any($1)"#,
        &watched as &[OrderId],
    );
    let versions = versions.fetch_all(&service.db).await?;
    service.watched.compare(versions.into_iter().map(|row| (row.order_id, row.version)));
    Ok(())
}

/// What happened to each of these orders, or why it cannot be said.
async fn read(
    service: &Service,
    order_ids: &[OrderId],
) -> Result<BTreeMap<OrderId, Result<Vec<Step>, String>>, Unexpected> {
    let rows = sqlx::query_as!(
        StoredEvent,
        r#"select order_id as "order_id: _", version, event_id, type as event_type, payload, actor, causation_id, occurred_at
           from order_event where order_id = any($1) order by order_id, version"#,
        order_ids as &[OrderId],
    );
    let (mut histories, mut latest) = (BTreeMap::new(), None::<Order>);
    for row in rows.fetch_all(&service.db).await? {
        let history = histories.entry(row.order_id).or_insert_with(|| Ok(vec![]));
        let Ok(steps) = history else { continue };
        let before = latest.take().filter(|order| order.order_id == row.order_id);
        match apply(before, &row) {
            Ok((step, order)) => {
                steps.push(step);
                latest = Some(order);
            }
            Err(why) => *history = Err(why),
        }
    }
    Ok(histories)
}

fn apply(before: Option<Order>, row: &StoredEvent) -> Result<(Step, Order), String> {
    let event = OrderEvent::decode(&*row.payload).map_err(|error| error.to_string())?;
    let entry = row.to_entry(&event);
    let order = fold(before, row.order_id.0, event, row.occurred_at)?;
    Ok((Step { event: entry, order: order.to_proto() }, order))
}
