//! The invariants of orders, as far as the tables of this service can show them. For `souk check`.

use std::collections::{BTreeMap, HashMap, HashSet};

use chassis::Unexpected;
use chassis::check::{Exemptions, Finding, Range};
use chassis::rpc::idempotency::KEPT;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{
    CreateOrderRequest, CreateOrderResponse, OrderEvent, OrderItemsReturned, ReturnDisposition,
};
use futures_util::{Stream, TryStreamExt};
use prost::{Message, Name};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::rebuild;

/// How long an order may take over its deadline to settle, and over its confirmation to be paid.
const PATIENCE: time::Duration = time::Duration::seconds(60);
/// How much earlier than allowed a stored response may be deleted, in this check.
const MARGIN: time::Duration = time::Duration::hours(1);

/// How many orders there are.
pub async fn count(db: &PgPool) -> Result<i64, Unexpected> {
    Ok(sqlx::query_scalar!(r#"select count(*) as "count!" from "order""#).fetch_one(db).await?)
}

/// The `count`th order behind `after`. Events end a range, too, so that those without an order are not read all at once.
pub async fn range_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        r#"select least(
             (select order_id from "order" where order_id > $1 order by order_id offset $2 limit 1),
             (select order_id from order_event where order_id > $1 order by order_id, version offset $3 limit 1))"#,
        after,
        count - 1,
        count * 10 - 1,
    );
    Ok(end.fetch_one(db).await?)
}

/// I4: every order settled in time, and the confirmed ones were paid for.
pub async fn check_settled(
    db: &PgPool,
    range: Range,
    now: OffsetDateTime,
    exemptions: &Exemptions,
) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, state,
             (state in ('PENDING', 'RESERVED') and expires_at < $1)
               or (state = 'CONFIRMED' and not captured and updated_at < $1) as "stuck!"
           from "order" where order_id > $2 and order_id <= $3"#,
        now - PATIENCE,
        range.after,
        range.last,
    );
    let mut finding = Finding::new("I4", "orders");
    for row in rows.fetch_all(db).await? {
        finding.add_unless_exempt(exemptions, row.order_id, row.stuck.then(|| format!("it is stuck in {}", row.state)));
    }
    Ok(finding)
}

/// I9: every order took only legal steps, and its row is what its events say.
pub async fn check_orders(db: &PgPool, range: Range) -> Result<Finding, Unexpected> {
    let mut finding = Finding::new("I9", "orders");
    let compared = rebuild::compare(db, range, |difference| finding.violate(difference.order_id, difference.why));
    let checked = compared.await?;
    Ok(Finding { checked, ..finding })
}

/// How many stored responses have an order, and whether one must still be stored. 2 bytes, as there are many.
struct Responses {
    count: u8,
    is_stored: bool,
}

/// I6: every order was made by one request, whose response is stored as long as its key is valid; and every order of a stored
/// response exists. No index leads from orders to stored responses, so all responses are read once for every `max` orders, of
/// which a few bytes are in memory.
pub async fn check_responses(db: &PgPool, now: OffsetDateTime, max: i64) -> Result<Finding, Unexpected> {
    let (mut finding, mut next) = (Finding::new("I6", "orders and their requests"), Some(Uuid::nil()));
    while let Some(after) = next {
        let range = Range::to_first(after, [range_end(db, after, max).await?]);
        next = range.next();
        // One snapshot of both tables.
        let mut tx = db.begin_with("begin isolation level repeatable read read only").await?;
        let mut orders = orders_of(&mut tx, range, now).await?;
        let mut responses = stored_responses(&mut tx);
        while let Some((_, order_id)) = responses.try_next().await? {
            match orders.get_mut(&order_id) {
                Some(responses) => responses.count = responses.count.saturating_add(1),
                None if range.contains(order_id) => {
                    finding.add(order_id, Some("a stored response has it, but it does not exist".to_owned()));
                }
                None => {}
            }
        }
        drop(responses);
        tx.commit().await?;
        for (order_id, Responses { count, is_stored }) in orders {
            let is_wrong = count > 1 || (count == 0 && is_stored);
            finding.add(order_id, is_wrong.then(|| format!("{count} stored responses have this order")));
        }
    }
    Ok(finding)
}

/// The orders of a range, before responses are counted.
async fn orders_of(
    tx: &mut PgConnection,
    range: Range,
    now: OffsetDateTime,
) -> Result<HashMap<Uuid, Responses>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, created_at > $1 as "is_stored!" from "order" where order_id > $2 and order_id <= $3"#,
        now - KEPT + MARGIN,
        range.after,
        range.last,
    );
    let (mut orders, mut rows) = (HashMap::new(), rows.fetch(tx));
    while let Some(row) = rows.try_next().await? {
        orders.insert(row.order_id, Responses { count: 0, is_stored: row.is_stored });
    }
    Ok(orders)
}

/// The wanted idempotency keys and the orders that were made under them, as far as their responses are stored.
pub async fn orders_by_key(db: &PgPool, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Uuid)>, Unexpected> {
    let (mut session, mut made) = (db.acquire().await?, Vec::new());
    let mut responses = stored_responses(&mut session);
    while let Some((key, order_id)) = responses.try_next().await? {
        if is_wanted(&key) {
            made.push((key, order_id));
        }
    }
    drop(responses);
    Ok(made)
}

/// A stored response of CreateOrder, under the key of its request.
struct StoredResponse {
    key: String,
    response: Vec<u8>,
}

impl StoredResponse {
    fn parse(self) -> Result<(String, Uuid), Unexpected> {
        let order = CreateOrderResponse::decode(&*self.response)?.order.unwrap_or_default();
        let broken =
            |error| Unexpected::Broken(format!("a stored response has the order {:?}: {error}", order.order_id));
        Ok((self.key, Uuid::parse_str(&order.order_id).map_err(broken)?))
    }
}

/// The keys of requests that made an order, and the orders.
fn stored_responses(db: &mut PgConnection) -> impl Stream<Item = Result<(String, Uuid), Unexpected>> + Unpin {
    let method = CreateOrderRequest::full_name();
    let responses =
        sqlx::query_as!(StoredResponse, "select key, response from idempotency where method = $1", method).fetch(db);
    responses.map_err(Unexpected::from).and_then(|response| std::future::ready(response.parse()))
}

/// The orders of a range.
pub async fn order_ids(db: &PgPool, range: Range) -> Result<Vec<Uuid>, Unexpected> {
    let ids = sqlx::query_scalar!(
        r#"select order_id from "order" where order_id > $1 and order_id <= $2"#,
        range.after,
        range.last,
    );
    Ok(ids.fetch_all(db).await?)
}

/// Which of these orders exist.
pub async fn existing(db: &PgPool, orders: &[Uuid]) -> Result<HashSet<Uuid>, Unexpected> {
    let ids = sqlx::query_scalar!(r#"select order_id from "order" where order_id = any($1)"#, orders);
    Ok(ids.fetch_all(db).await?.into_iter().collect())
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

/// How these orders settled, if they did not change for a while: by now, every service must have consumed the event.
pub async fn settled(db: &PgPool, orders: &[Uuid], now: OffsetDateTime) -> Result<HashMap<Uuid, Settled>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, state in ('CONFIRMED', 'FULFILLED') as "sold!"
           from "order" where order_id = any($1) and state not in ('PENDING', 'RESERVED') and updated_at < $2"#,
        orders,
        now - PATIENCE,
    );
    let settled = |sold| if sold { Settled::Sold } else { Settled::Unsold };
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, settled(row.sold))).collect())
}

/// The stages that the orders of a range have reached, such as `CONFIRMED`, and whether each was recorded before `since`.
pub async fn stages(
    db: &PgPool,
    range: Range,
    since: OffsetDateTime,
) -> Result<HashMap<Uuid, HashMap<String, bool>>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, stage as "stage!", min(occurred_at) < $3 as "is_old!"
           from order_event join (values ('Placed', 'PLACED'), ('Reserved', 'RESERVED'), ('Confirmed', 'CONFIRMED'),
               ('Paid', 'PAID'), ('Fulfilled', 'FULFILLED'), ('Rejected', 'REJECTED'), ('PaymentFailed', 'PAYMENT_FAILED'),
               ('Cancelled', 'CANCELLED'), ('Expired', 'EXPIRED')) as reached (event, stage)
             on type = 'souk.order.v1.Order' || event
           where order_id > $1 and order_id <= $2 group by order_id, stage"#,
        range.after,
        range.last,
        since,
    );
    let mut stages = HashMap::<Uuid, HashMap<String, bool>>::new();
    for row in rows.fetch_all(db).await? {
        stages.entry(row.order_id).or_default().insert(row.stage, row.is_old);
    }
    Ok(stages)
}

/// By currency: how many orders were paid, their total, and what was refunded, in minor units.
pub async fn sales(db: &PgPool) -> Result<BTreeMap<String, [i64; 3]>, Unexpected> {
    let rows = sqlx::query!(
        r#"select currency, count(*) filter (where captured) as "paid!",
             coalesce(sum(total_minor) filter (where captured), 0)::bigint as "gross!",
             coalesce(sum(refunded_minor) filter (where captured), 0)::bigint as "refunded!"
           from "order" group by currency having count(*) filter (where captured) > 0"#
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.currency, [row.paid, row.gross, row.refunded])).collect())
}

/// What was refunded of the orders of a range as this service knows it, in minor units.
pub async fn refunded(db: &PgPool, range: Range) -> Result<HashMap<Uuid, i64>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, refunded_minor from "order" where order_id > $1 and order_id <= $2"#,
        range.after,
        range.last,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, row.refunded_minor)).collect())
}

/// The units of each SKU that came back, by what happened to them.
pub type Units = BTreeMap<(String, ReturnDisposition), i64>;

/// What came back of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    pub units: Units,
    /// Their price, in minor units.
    pub minor: i64,
}

/// What came back of the orders of a range, unless they changed just now: by now, inventory and payment must have consumed it.
/// Orders without returns are included.
pub async fn returned(db: &PgPool, range: Range, now: OffsetDateTime) -> Result<HashMap<Uuid, Returned>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, coalesce(minor, 0) as "minor!",
             array(select payload from order_event as event
                   where returns > 0 and event.order_id = "order".order_id and type = $4 order by version) as "events!"
           from "order" left join lateral
             (select sum(returned * price_minor)::bigint as minor
              from order_line where returns > 0 and order_line.order_id = "order".order_id) as line on true
           where order_id > $1 and order_id <= $2 and updated_at < $3"#,
        range.after,
        range.last,
        now - PATIENCE,
        OrderItemsReturned::full_name(),
    );
    let returned = rows.fetch_all(db).await?.into_iter();
    returned.map(|row| Ok((row.order_id, Returned { units: units(&row.events)?, minor: row.minor }))).collect()
}

/// The units of these events.
fn units(events: &[Vec<u8>]) -> Result<Units, Unexpected> {
    let mut units = Units::new();
    for event in events {
        let event = OrderEvent::decode(&**event).map_err(|error| Unexpected::Broken(format!("an event: {error}")))?;
        let Some(Event::OrderItemsReturned(returned)) = event.event else { continue };
        for item in returned.items {
            let disposition = item.disposition();
            *units.entry((item.sku, disposition)).or_default() += i64::from(item.quantity);
        }
    }
    Ok(units)
}

/// How an order settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Confirmed, and perhaps fulfilled.
    Sold,
    /// Rejected, cancelled, expired, or its payment failed: no stock is held and no money kept.
    Unsold,
}
