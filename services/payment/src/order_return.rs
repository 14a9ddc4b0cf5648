//! Items of an order came back: their price is reserved for a refund, which [`crate::drive`] makes like any other.
//!
//! Refunds together never exceed what was captured. Where others have left less than the price, what is left is refunded, and if
//! that is nothing, nothing is: the row of the return says so, a line in the log, and a metric.

use std::sync::LazyLock;

use chassis::boot::metrics;
use chassis::event::HandleError;
use chassis::{Clock, Unexpected};
use contracts::souk::payment::v1::RefundReason;
use contracts::souk::r#type::v1::Money;
use prometheus_client::metrics::counter::Counter;
use sqlx::PgConnection;

use crate::ids::OrderId;
use crate::payment::{Payment, payments};
use crate::refund::{NewRefund, Refund};
use crate::state::State;

static SHORT: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Returns of which less than the price was refunded, as other refunds had left less";
    metrics::register("payment_returns_short", help, Counter::default())
});

#[derive(Debug)]
pub(crate) struct Return {
    pub(crate) order_id: OrderId,
    /// Counts the returns of the order.
    pub(crate) number: i32,
    /// The price of what came back.
    pub(crate) refund: Money,
    /// Who took it back.
    pub(crate) actor: String,
}

/// Returns are few, so they need no sets. The consumer has locked the payments of all returns of its transaction, in the order of
/// order ids, so that it cannot deadlock with other transactions.
pub(crate) async fn reserve(tx: &mut PgConnection, clock: &Clock, it: &Return) -> Result<(), HandleError> {
    let payment = payments!("select".."from payment where order_id = $1", it.order_id.0);
    let payment = payment.fetch_optional(&mut *tx).await.map_err(Unexpected::from)?;
    let Some(payment) = payment.filter(|payment| payment.state == State::Captured) else {
        return Err(HandleError::Poisoned("nothing was captured for an order of which items came back".to_owned()));
    };
    if payment.currency != it.refund.currency {
        return Err(HandleError::Poisoned("its refund is in another currency than its payment".to_owned()));
    }
    let (payment_id, minor, now) = (payment.payment_id, it.refund.minor.min(payment.unrefunded()), clock.now());
    let new = NewRefund { payment_id, minor, actor: &it.actor, reason: RefundReason::OrderReturn };
    let refund = (minor > 0).then(|| Refund::new(clock, new));
    if let Some(refund) = &refund {
        Payment::reserve(tx, payment_id, minor, now).await.map_err(Unexpected::from)?;
        refund.insert(tx).await?;
    }
    sqlx::query!(
        "insert into order_return (payment_id, number, asked_minor, minor, refund_id, created_at)
         values ($1, $2, $3, $4, $5, $6)",
        payment_id.0,
        it.number,
        it.refund.minor,
        minor,
        refund.map(|refund| refund.refund_id.0),
        now,
    )
    .execute(tx)
    .await
    .map_err(Unexpected::from)?;
    if minor < it.refund.minor {
        SHORT.inc();
        let (order_id, asked) = (it.order_id, it.refund.minor);
        tracing::warn!(%order_id, asked, refunded = minor, "other refunds had left less than the price of returned items");
    }
    Ok(())
}
