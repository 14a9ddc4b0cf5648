//! The invariants of money, as far as the tables of this service can show them. For `souk check`.

mod provider;

use std::collections::HashMap;

use chassis::Unexpected;
use chassis::check::{Finding, Range};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::state::State;

pub use provider::{Movements, Page, Provider};

/// How long the order service may take to consume a refund.
const PATIENCE: time::Duration = time::Duration::seconds(60);

/// One order's payment in our ledger, in minor units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerSums {
    pub payment_id: Uuid,
    /// The provider's id of it.
    pub intent_id: Option<String>,
    pub authorized: i64,
    pub captured: i64,
    pub voided: i64,
    pub refunded: i64,
    /// Whether the payment has work left.
    pub is_due: bool,
    /// Whether the provider refuses for good to refund the remainder.
    pub refused: bool,
}

/// The payments of these orders.
pub async fn ledger_sums(db: &PgPool, orders: &[Uuid]) -> Result<HashMap<Uuid, LedgerSums>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, payment_id, intent_id, due_at is not null as "is_due!", refund_refusal <> '' as "refused!",
             coalesce(sum(minor) filter (where kind = 'AUTHORIZATION'), 0)::bigint as "authorized!",
             coalesce(sum(minor) filter (where kind = 'CAPTURE'), 0)::bigint as "captured!",
             coalesce(sum(minor) filter (where kind = 'VOID'), 0)::bigint as "voided!",
             coalesce(sum(case kind when 'REFUND' then minor when 'REFUND_REVERSAL' then -minor end), 0)::bigint
               as "refunded!"
           from payment left join ledger_transfer using (payment_id)
           where order_id = any($1) group by payment.payment_id"#,
        orders,
    );
    let books = rows.fetch_all(db).await?.into_iter().map(|row| {
        let books = LedgerSums {
            payment_id: row.payment_id,
            intent_id: row.intent_id,
            authorized: row.authorized,
            captured: row.captured,
            voided: row.voided,
            refunded: row.refunded,
            is_due: row.is_due,
            refused: row.refused,
        };
        (row.order_id, books)
    });
    Ok(books.collect())
}

/// The orders of a range that have a payment, and the provider's ids of these.
pub async fn intents(db: &PgPool, range: Range) -> Result<Vec<(Uuid, Option<String>)>, Unexpected> {
    let rows = sqlx::query!(
        "select order_id, intent_id from payment where order_id > $1 and order_id <= $2",
        range.after,
        range.last,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, row.intent_id)).collect())
}

/// I3: of every return, as much was reserved for a refund as its row says, and every refund of a return has such a row.
pub async fn check_returns(db: &PgPool, range: Range) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, number as "number?", it.minor as "minor?", refund_minor as "refund_minor?"
           from payment cross join lateral
             (select number, returned.minor, refund.minor as refund_minor
              from (select * from order_return where order_return.payment_id = payment.payment_id) as returned full join
                (select * from refund where refund.payment_id = payment.payment_id and reason = 'ORDER_RETURN') as refund
                using (refund_id)) as it
           where order_id > $1 and order_id <= $2"#,
        range.after,
        range.last,
    );
    let mut finding = Finding::new("I3", "refunds of returns");
    for row in rows.fetch_all(db).await? {
        let (reserved, expected) = (row.refund_minor.unwrap_or_default(), row.minor.unwrap_or_default());
        let why = || match row.number {
            Some(number) => format!("return {number} has a refund of {reserved} instead of {expected}"),
            None => format!("{reserved} was refunded for a return that does not exist"),
        };
        finding.add(row.order_id, (reserved != expected).then(why));
    }
    Ok(finding)
}

/// The `count`th order behind `after` that has a payment.
pub async fn range_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        "select order_id from payment where order_id > $1 order by order_id offset $2 limit 1",
        after,
        count - 1,
    );
    Ok(end.fetch_optional(db).await?)
}

/// I3: what was captured and refunded is what the ledger moved, in the payment's currency, what is reserved for refunds is
/// what the pending ones ask for, and no account of a payment ever gave more than it had.
pub async fn check_ledger(db: &PgPool, range: Range) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select payment_id, captured_minor, refunded_minor, refund_pending_minor, amount_minor,
             coalesce(sum(minor) filter (where kind = 'AUTHORIZATION'), 0)::bigint as "authorized!",
             coalesce(sum(minor) filter (where kind = 'CAPTURE'), 0)::bigint as "captured!",
             coalesce(sum(minor) filter (where kind = 'VOID'), 0)::bigint as "voided!",
             coalesce(sum(case kind when 'REFUND' then minor when 'REFUND_REVERSAL' then -minor end), 0)::bigint
               as "refunded!",
             coalesce(bool_or(ledger_transfer.currency <> payment.currency), false) as "foreign!",
             (select coalesce(sum(refund.minor), 0)::bigint from refund
              where refund.payment_id = payment.payment_id and refund.state = 'PENDING') as "reserved!",
             (select coalesce(sum(refund.minor), 0)::bigint from refund
              where refund.payment_id = payment.payment_id and refund.state = 'DONE') as "done!"
           from payment left join ledger_transfer using (payment_id)
           where order_id > $1 and order_id <= $2 group by payment.payment_id"#,
        range.after,
        range.last,
    );
    let mut finding = Finding::new("I3", "payments");
    for row in rows.fetch_all(db).await? {
        let moved = (row.captured, row.refunded) == (row.captured_minor, row.refunded_minor);
        let held = row.authorized - row.voided - row.captured >= 0 && row.authorized <= row.amount_minor;
        let asked = row.reserved == row.refund_pending_minor && row.done <= row.refunded;
        let kept = row.refunded + row.refund_pending_minor <= row.captured;
        finding.add(row.payment_id, (!moved || !held || !kept || !asked || row.foreign).then(|| format!("{row:?}")));
    }
    Ok(finding)
}

/// What was refunded of the orders of a range, in minor units, if nothing is under way and no money moved for a while: by now,
/// the order service must have consumed the event.
pub async fn refunded(db: &PgPool, range: Range, now: OffsetDateTime) -> Result<HashMap<Uuid, i64>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, refunded_minor from payment
           where order_id > $1 and order_id <= $2 and due_at is null
             and not exists (select from ledger_transfer as moved
                             where moved.payment_id = payment.payment_id and moved.created_at >= $3)"#,
        range.after,
        range.last,
        now - PATIENCE,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, row.refunded_minor)).collect())
}

/// What came back of the orders of a range, by its price in minor units. Orders of which nothing did are left out.
pub async fn returned(db: &PgPool, range: Range) -> Result<HashMap<Uuid, i64>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, sum(asked_minor)::bigint as "asked!" from order_return join payment using (payment_id)
           where order_id > $1 and order_id <= $2 group by order_id"#,
        range.after,
        range.last,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, row.asked)).collect())
}

/// The `count`th payment behind `after`. Histories end a range, too, so that those without a payment are not read all at once.
pub async fn history_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        "select least(
           (select payment_id from payment where payment_id > $1 order by payment_id offset $2 limit 1),
           (select payment_id from payment_history where payment_id > $1 order by payment_id, id offset $3 limit 1))",
        after,
        count - 1,
        count * 10 - 1,
    );
    Ok(end.fetch_one(db).await?)
}

/// I9: every payment took only legal steps, and is in the last state of its history. The range is one of payments, as a history without
/// a payment has no order.
pub async fn check_payments(db: &PgPool, range: Range) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select payment_id as "payment_id!", now.state as "state?",
             coalesce(array_agg(history.state order by history.id) filter (where history.state is not null), '{}') as "past!"
           from (select payment_id, state from payment where payment_id > $1 and payment_id <= $2) as now
             full join (select payment_id, id, state from payment_history where payment_id > $1 and payment_id <= $2)
               as history using (payment_id)
           group by payment_id, now.state"#,
        range.after,
        range.last,
    );
    let mut finding = Finding::new("I9", "payments");
    for row in rows.fetch_all(db).await? {
        let past = row.past.iter().map(|state| State::parse(state)).collect::<Result<Vec<_>, _>>()?;
        let legal = past.windows(2).all(|step| step[0].may_become(step[1]));
        let whole = past.first() == Some(&State::Pending) && row.past.last() == row.state.as_ref();
        finding.add(row.payment_id, (!legal || !whole).then(|| format!("{:?}, now {:?}", row.past, row.state)));
    }
    Ok(finding)
}

/// How many events payments have recorded: the first of those behind `after`, in the order of their ids.
pub async fn versions(db: &PgPool, after: Uuid, limit: i64) -> Result<Vec<(Uuid, i64)>, Unexpected> {
    let rows = sqlx::query!(
        "select payment_id, version from payment where payment_id > $1 and version > 0 order by payment_id limit $2",
        after,
        limit,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.payment_id, row.version)).collect())
}

/// The orders of payments.
pub async fn orders_of(db: &PgPool, payments: &[Uuid]) -> Result<Vec<Uuid>, Unexpected> {
    let orders = sqlx::query_scalar!("select order_id from payment where payment_id = any($1)", payments);
    Ok(orders.fetch_all(db).await?)
}
