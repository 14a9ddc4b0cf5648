//! Whether figures are those of the orders that they count, as far as the tables of this service can show it. For `souk check`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chassis::Unexpected;
use chassis::check::{Finding, Range};
use sqlx::PgPool;
use uuid::Uuid;

use crate::fact::Stage;

/// The order of the `count`th row behind `after`.
pub async fn range_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        "select order_id from counted_order where projection_id = (select projection_id from projection where state = 'LIVE')
           and order_id > $1 order by order_id offset $2 limit 1",
        after,
        count - 1,
    );
    Ok(end.fetch_optional(db).await?)
}

/// The stages in which the orders of a range are counted, such as `CONFIRMED`.
pub async fn counted(db: &PgPool, range: Range) -> Result<HashMap<Uuid, BTreeSet<&'static str>>, Unexpected> {
    let rows = sqlx::query!(
        "select order_id, stages from counted_order
         where projection_id = (select projection_id from projection where state = 'LIVE')
           and order_id > $1 and order_id <= $2",
        range.after,
        range.last,
    );
    let stages = |bits: i32| Stage::ALL.into_iter().filter(|it| bits & *it as i32 != 0).map(Stage::name).collect();
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.order_id, stages(row.stages))).collect())
}

/// I12: the funnel, the times and the numbers of sales are those of the orders that are counted, and the sales of all products are
/// those of all orders.
pub async fn check_sums(db: &PgPool) -> Result<Finding, Unexpected> {
    // One snapshot of all tables.
    let mut tx = db.begin_with("begin isolation level repeatable read read only").await?;
    let live = sqlx::query_scalar!("select projection_id from projection where state = 'LIVE'");
    let live = live.fetch_one(&mut *tx).await?;
    let mut finding = Finding::new("I12", "sums");
    let mut compare = |what: &str, sum: i64, expected: i64| {
        finding.add(what, (sum != expected).then(|| format!("it is {sum}, but should be {expected}")));
    };
    let stages = sqlx::query!(
        r#"select (select coalesce(sum(orders), 0)::bigint from funnel where projection_id = $1 and stage = name) as "sum!",
             (select count(*) from counted_order where projection_id = $1 and stages & bit <> 0) as "orders!", name as "name!"
           from unnest($2::text[], $3::integer[]) as stage (name, bit)"#,
        live,
        &Stage::ALL.map(|stage| stage.name().to_owned())[..],
        &Stage::ALL.map(|stage| stage as i32)[..],
    );
    let mut orders = HashMap::new();
    for row in stages.fetch_all(&mut *tx).await? {
        compare(&row.name, row.sum, row.orders);
        orders.insert(row.name, row.orders);
    }
    let sums = sqlx::query!(
        r#"select (select coalesce(sum(orders), 0)::bigint from confirmation_time where projection_id = $1) as "times!",
             (select coalesce(sum(paid_orders), 0)::bigint from sales where projection_id = $1) as "paid!""#,
        live,
    );
    let sums = sums.fetch_one(&mut *tx).await?;
    compare("confirmation times", sums.times, orders[Stage::Confirmed.name()]);
    compare("paid orders", sums.paid, orders[Stage::Paid.name()]);
    let gross = sqlx::query!(
        r#"select currency as "currency!", coalesce(sales.gross, 0) as "sum!", coalesce(products.gross, 0) as "products!"
           from (select currency, sum(gross)::bigint as gross from sales where projection_id = $1 group by currency) as sales
           full join (select currency, sum(gross)::bigint as gross from product_sales where projection_id = $1
             group by currency) as products using (currency)"#,
        live,
    );
    for row in gross.fetch_all(&mut *tx).await? {
        compare(&format!("gross sales in {}", row.currency), row.sum, row.products);
    }
    tx.commit().await?;
    Ok(finding)
}

/// By currency: how many orders were paid, their total, and what was refunded, in minor units.
pub async fn sales(db: &PgPool) -> Result<BTreeMap<String, [i64; 3]>, Unexpected> {
    let rows = sqlx::query!(
        r#"select currency, sum(paid_orders)::bigint as "paid!", sum(gross)::bigint as "gross!",
             sum(refunded)::bigint as "refunded!"
           from sales join projection using (projection_id) where state = 'LIVE' group by currency"#
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.currency, [row.paid, row.gross, row.refunded])).collect())
}
