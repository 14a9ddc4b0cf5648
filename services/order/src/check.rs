//! The invariants of orders, asked of the tables.

use std::collections::HashMap;

use chassis::{Finding, Unexpected};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::rebuild;

/// How long an order may take over its deadline to settle, and over its confirmation to be paid.
const PATIENCE: time::Duration = time::Duration::seconds(60);

/// I4: every order settled in time, and the confirmed ones were paid for.
pub async fn check_settled(db: &PgPool, now: OffsetDateTime) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, state,
             (state in ('PENDING', 'RESERVED') and expires_at < $1)
               or (state = 'CONFIRMED' and not captured and updated_at < $1) as "stuck!"
           from "order""#,
        now - PATIENCE,
    );
    let mut finding = Finding::new("I4", "orders");
    for row in rows.fetch_all(db).await? {
        finding.look(row.order_id, row.stuck.then(|| format!("it is stuck in {}", row.state)));
    }
    Ok(finding)
}

/// I9: every order took only legal steps, and its row is what its events say.
pub async fn check_orders(db: &PgPool) -> Result<Finding, Unexpected> {
    let (count, differences) = rebuild::compare(db).await?;
    let violations = differences.into_iter().map(|it| (it.order_id.to_string(), it.why)).collect();
    Ok(Finding { invariant: "I9", things: "orders", count, violations })
}

/// How many events each order has recorded.
pub async fn versions(db: &PgPool) -> Result<HashMap<Uuid, i64>, Unexpected> {
    let rows = sqlx::query!(r#"select order_id, max(version) as "version!" from order_event group by order_id"#,);
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, row.version)).collect())
}

/// How orders ended that did not change for a while: by now, everybody must have heard of it.
pub async fn ends(db: &PgPool, now: OffsetDateTime) -> Result<HashMap<Uuid, End>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, state in ('CONFIRMED', 'FULFILLED') as "sold!"
           from "order" where state not in ('PENDING', 'RESERVED') and updated_at < $1"#,
        now - PATIENCE,
    );
    let end = |sold| if sold { End::Sold } else { End::CalledOff };
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, end(row.sold))).collect())
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Confirmed, and perhaps fulfilled.
    Sold,
    /// Rejected, cancelled, expired or not paid for: nothing is held for it and nothing kept.
    CalledOff,
}
