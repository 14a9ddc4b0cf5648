//! The only clock of the flow: an order that did not settle by its deadline expires, and whoever holds something for it
//! lets go when it reads so.

use std::sync::Arc;

use chassis::Did;
use chassis::{Owner, Unexpected};

use crate::Service;
use crate::error::Error;
use crate::event::{self, Cause, Fact};
use crate::order::Order;

const BATCH: i64 = 50;

pub(crate) async fn expire_due(service: Arc<Service>) -> Result<Did, Unexpected> {
    match expire(&service).await {
        Ok(did) => Ok(did),
        Err(Error::Chassis(chassis::Error::Unexpected(unexpected))) => Err(unexpected),
        Err(refused) => Err(Unexpected::Broken(refused.to_string())),
    }
}

async fn expire(service: &Service) -> Result<Did, Error> {
    let mut tx = service.db.begin().await?;
    let due = sqlx::query_scalar!(
        r#"select order_id from "order" where state in ('PENDING', 'RESERVED') and expires_at <= $1
           order by expires_at limit $2 for no key update skip locked"#,
        service.clock.now(),
        BATCH,
    )
    .fetch_all(&mut *tx)
    .await?;
    for order_id in &due {
        let order = Order::lock(&mut tx, *order_id, Owner::Anybody).await?;
        let mut order = order.ok_or(Error::OrderNotFound)?;
        event::record(service, &mut tx, &mut order, Fact::Expired, &Cause::ourselves()).await?;
    }
    tx.commit().await?;
    if due.is_empty() {
        return Ok(Did::Nothing);
    }
    tracing::info!(count = due.len(), "orders expired");
    service.published.wake();
    Ok(Did::Something)
}
