//! The invariants of orders, asked of the tables.

use std::collections::{HashMap, HashSet};

use chassis::idempotency::KEPT;
use chassis::{Finding, Unexpected};
use contracts::souk::order::v1::{CreateOrderRequest, CreateOrderResponse};
use prost::{Message, Name};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::rebuild;

/// How long an order may take over its deadline to settle, and over its confirmation to be paid.
const PATIENCE: time::Duration = time::Duration::seconds(60);
/// How much earlier than it may be an answer is taken to be forgotten.
const ALMOST: time::Duration = time::Duration::hours(1);

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
    let mut finding = Finding { count, ..Finding::new("I9", "orders") };
    for difference in differences {
        finding.violate(difference.order_id, difference.why);
    }
    Ok(finding)
}

/// I6: every order was made by one request, whose answer is kept as long as its key counts; and what was answered is there.
pub async fn check_answers(db: &PgPool, now: OffsetDateTime) -> Result<Finding, Unexpected> {
    let mut tx = db.begin_with("begin isolation level repeatable read read only").await?;
    let mut answers: HashMap<Uuid, u32> = HashMap::new();
    for (_, order_id) in answered(&mut tx).await? {
        *answers.entry(order_id).or_default() += 1;
    }
    let orders = sqlx::query!(r#"select order_id, created_at from "order""#).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    let mut finding = Finding::new("I6", "orders and their requests");
    for order in orders {
        let count = answers.remove(&order.order_id).unwrap_or_default();
        let is_remembered = order.created_at > now - KEPT + ALMOST;
        let why =
            (count > 1 || (count == 0 && is_remembered)).then(|| format!("{count} requests were answered with it"));
        finding.look(order.order_id, why);
    }
    for order_id in answers.into_keys() {
        finding.look(order_id, Some("it was answered, and is not there".to_owned()));
    }
    Ok(finding)
}

/// Which orders were made under which keys, as far as that is remembered.
pub async fn orders_by_key(db: &PgPool) -> Result<Vec<(String, Uuid)>, Unexpected> {
    answered(&mut *db.acquire().await?).await
}

async fn answered(db: &mut PgConnection) -> Result<Vec<(String, Uuid)>, Unexpected> {
    let method = CreateOrderRequest::full_name();
    let rows = sqlx::query!("select key, response from idempotency where method = $1", method);
    let rows = rows.fetch_all(db).await?.into_iter().map(|row| {
        let order = CreateOrderResponse::decode(&*row.response)?.order.unwrap_or_default();
        let broken = |error| Unexpected::Broken(format!("an answer names the order {:?}: {error}", order.order_id));
        Ok((row.key, Uuid::parse_str(&order.order_id).map_err(broken)?))
    });
    rows.collect()
}

/// All there are.
pub async fn order_ids(db: &PgPool) -> Result<HashSet<Uuid>, Unexpected> {
    let ids = sqlx::query_scalar!(r#"select order_id from "order""#).fetch_all(db).await?;
    Ok(ids.into_iter().collect())
}

/// How many events orders have recorded: the first of those behind `after`, in the order of their ids.
pub async fn versions(db: &PgPool, after: Uuid, limit: i64) -> Result<Vec<(Uuid, i64)>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, max(version) as "version!" from order_event where order_id > $1
           group by order_id order by order_id limit $2"#,
        after,
        limit,
    );
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
