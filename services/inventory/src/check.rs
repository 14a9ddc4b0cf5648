//! The invariants of stock, as far as the tables of this service can show them. For `souk check`.

use std::collections::{BTreeMap, HashMap};

use chassis::Unexpected;
use chassis::check::{Finding, Range};
use contracts::souk::order::v1::ReturnDisposition;
use futures_util::TryStreamExt;
use sqlx::PgPool;
use uuid::Uuid;

use crate::reservation::State;

/// The `count`th order behind `after` that has a reservation. Histories end a range, too, so that those without a reservation
/// are not read all at once.
pub async fn range_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        "select least(
           (select order_id from reservation where order_id > $1 order by order_id offset $2 limit 1),
           (select order_id from reservation_history where order_id > $1 order by order_id, version offset $3 limit 1))",
        after,
        count - 1,
        count * 10 - 1,
    );
    Ok(end.fetch_one(db).await?)
}

/// I1: no SKU is oversold, its counters add up, and they are what the reservations say. One statement, as all of it must be of
/// the same moment; the database adds up.
pub async fn check_stock(db: &PgPool) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select stock.sku, available, reserved, sold, received - written_off as "owned!", coalesce(held, 0) as "held!",
             coalesce(bought, 0) as "bought!"
           from stock left join
             (select sku, sum(quantity) filter (where state = 'HELD') as held,
                sum(quantity - returned) filter (where state = 'SOLD') as bought
              from reservation_line join reservation using (order_id) group by sku) as said using (sku)"#,
    );
    let (mut finding, mut rows) = (Finding::new("I1", "SKUs"), rows.fetch(db));
    while let Some(row) = rows.try_next().await? {
        let adds_up = row.available + row.reserved + row.sold == row.owned;
        let is_said = (row.reserved, row.sold) == (row.held, row.bought);
        let fine = row.available >= 0 && adds_up && is_said;
        finding.add(&row.sku, (!fine).then(|| format!("{row:?}")));
    }
    Ok(finding)
}

/// I9: every reservation took only legal steps, and is in the last state of its history.
pub async fn check_reservations(db: &PgPool, range: Range) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id as "order_id!", now.state as "state?",
             coalesce(array_agg(history.state order by history.version) filter (where history.state is not null), '{}')
               as "past!"
           from (select order_id, state from reservation where order_id > $1 and order_id <= $2) as now
             full join (select order_id, version, state from reservation_history where order_id > $1 and order_id <= $2)
               as history using (order_id)
           group by order_id, now.state"#,
        range.after,
        range.last,
    );
    let mut finding = Finding::new("I9", "reservations");
    for row in rows.fetch_all(db).await? {
        let past = row.past.iter().map(|state| State::parse(state)).collect::<Result<Vec<_>, _>>()?;
        let begins = past.first().is_some_and(|first| first.is_first());
        let legal = past.windows(2).all(|step| step[0].may_become(step[1]));
        let ends = row.past.last() == row.state.as_ref();
        let why = || format!("{:?}, now {:?}", row.past, row.state);
        finding.add(row.order_id, (!begins || !legal || !ends).then(why));
    }
    Ok(finding)
}

/// How many events reservations and SKUs have recorded: the first of those behind `after`, in the order of their ids.
pub async fn versions(db: &PgPool, after: Uuid, limit: i64) -> Result<Vec<(Uuid, i64)>, Unexpected> {
    let rows = sqlx::query!(
        r#"(select order_id as "key!", version as "version!" from reservation where order_id > $1 and version > 0
            order by order_id limit $2)
           union all
           (select low_id, low_version from stock where low_id > $1 and low_version > 0 order by low_id limit $2)
           order by 1 limit $2"#,
        after,
        limit,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.key, row.version)).collect())
}

/// The units of each SKU that came back, by what happened to them.
pub type Units = BTreeMap<(String, ReturnDisposition), i64>;

/// What came back of the orders of a range, by movements of stock. Units of an order's line without a movement, or the reverse, have
/// no disposition. Orders of which nothing came back are left out.
pub async fn returned(db: &PgPool, range: Range) -> Result<HashMap<Uuid, Units>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id as "order_id!", sku as "sku!", coalesce(restocked, 0) as "restocked!",
             coalesce(written_off, 0) as "written_off!", coalesce(returned, 0)::bigint as "returned!"
           from (select order_id, sku, (sum(units) filter (where reason = 'RETURNED'))::bigint as restocked,
                   (sum(units) filter (where reason = 'RETURNED_UNSALEABLE'))::bigint as written_off
                 from stock_movement where order_id > $1 and order_id <= $2 group by order_id, sku) as movement
             full join (select order_id, sku, returned from reservation_line
                        where order_id > $1 and order_id <= $2 and returned > 0) as line using (order_id, sku)"#,
        range.after,
        range.last,
    );
    let mut orders = HashMap::<Uuid, Units>::new();
    for row in rows.fetch_all(db).await? {
        let units = orders.entry(row.order_id).or_default();
        for (disposition, count) in [
            (ReturnDisposition::Restock, row.restocked),
            (ReturnDisposition::WriteOff, row.written_off),
            (ReturnDisposition::Unspecified, row.returned - row.restocked - row.written_off),
        ] {
            if count != 0 {
                units.insert((row.sku.clone(), disposition), count);
            }
        }
    }
    Ok(orders)
}

/// Whether the units of the orders of a range are held or sold. Orders without units are left out.
pub async fn held_or_sold(db: &PgPool, range: Range) -> Result<HashMap<Uuid, Holding>, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, state = 'SOLD' as "sold!" from reservation
           where state in ('HELD', 'SOLD') and order_id > $1 and order_id <= $2"#,
        range.after,
        range.last,
    );
    let holding = |sold| if sold { Holding::Sold } else { Holding::Held };
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, holding(row.sold))).collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    Held,
    Sold,
}
