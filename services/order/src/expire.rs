//! The only timer of the flow: an order that is not confirmed by its deadline expires. Inventory and payment consume that event
//! and release the stock and the authorization.

use std::sync::Arc;

use chassis::{Next, Unexpected};

use crate::fact::Fact;
use crate::order::Order;
use crate::record::{Cause, Changes};
use crate::service::Service;

const MAX_ORDERS: i64 = 50;

pub(crate) async fn expire_due(service: Arc<Service>) -> Result<Next, Unexpected> {
    let mut tx = service.db.begin().await?;
    // An order that another transaction has locked may change there, or stays due. The event of an expiry has no lines, so none
    // are read.
    let due = sqlx::query_as!(
        Order,
        r#"select order_id as "order_id: _", user_id as "user_id: _", state as "state: _", version, currency, total_minor,
             payment_method, payment_id as "payment_id: _", captured, refunded_minor, exit_reason, carrier,
             tracking_number, returns, expires_at, created_at, updated_at, array[]::record[] as "lines!: _",
             array[]::record[] as "shipments!: _"
           from "order" where state in ('PENDING', 'RESERVED') and expires_at <= $1
           order by expires_at limit $2 for no key update skip locked"#,
        service.clock.now(),
        MAX_ORDERS,
    );
    let mut due = due.fetch_all(&mut *tx).await?;
    let mut changes = Changes::new(&service);
    for order in &mut due {
        let expired = changes.record(order, &Fact::Expired, Cause::this_service());
        expired.map_err(|illegal| Unexpected::Broken(illegal.to_string()))?;
    }
    changes.save(&mut tx).await?;
    tx.commit().await?;
    if due.is_empty() {
        return Ok(Next::AfterPause);
    }
    tracing::info!(count = due.len(), "orders expired");
    service.published.wake();
    Ok(Next::AtOnce)
}
