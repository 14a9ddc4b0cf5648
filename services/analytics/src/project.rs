//! Adds facts to a projection: reads what it knows of their orders, adds up, and writes the sums, with one statement for each
//! table whatever the number of facts.

use std::collections::HashMap;

use chassis::Unexpected;
use chassis::boot::db::column;
use chassis::event::HandleError;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::additions::{Additions, CountedOrder};
use crate::fact::Fact;

/// Adds facts to the projection that is shown.
pub(crate) async fn add_to_live(tx: &mut PgConnection, facts: &[Fact]) -> Result<(), HandleError> {
    // Until the commit, no other projection takes its place. Not a lock of its row, which would be written each time.
    sqlx::query!("select pg_advisory_xact_lock_shared(hashtextextended('live projection', 2))")
        .execute(&mut *tx)
        .await?;
    let live = sqlx::query_scalar!("select projection_id from projection where state = 'LIVE'");
    let live = live.fetch_one(&mut *tx).await?;
    add(tx, live, facts).await
}

/// Adds facts to a projection, those that it counted before excepted.
pub(crate) async fn add(tx: &mut PgConnection, projection_id: i64, facts: &[Fact]) -> Result<(), HandleError> {
    let mut orders = read_orders(tx, projection_id, facts).await?;
    let (mut additions, mut changed) = (Additions::default(), Vec::new());
    for fact in facts {
        let order = orders.entry(fact.order_id).or_default();
        let before = order.as_ref().map(|order| order.version);
        additions.add(order, fact)?;
        if order.as_ref().map(|order| order.version) != before {
            changed.push(fact.order_id);
        }
    }
    changed.sort_unstable();
    changed.dedup();
    let changed = changed.into_iter().filter_map(|order_id| Some((order_id, orders.remove(&order_id)??))).collect();
    Ok(write(tx, projection_id, changed, additions).await?)
}

type Orders = HashMap<Uuid, Option<CountedOrder>>;

async fn read_orders(tx: &mut PgConnection, projection_id: i64, facts: &[Fact]) -> Result<Orders, sqlx::Error> {
    let mut order_ids = column(facts, |fact| fact.order_id);
    order_ids.sort_unstable();
    order_ids.dedup();
    let rows = sqlx::query!(
        // The limit tells the planner that there are few, so that it uses the index however it estimates the table.
        "select order_id, version, placed_at, stages, lines
         from (select id from unnest($2::uuid[]) as id limit cardinality($2)) as wanted
           join counted_order on projection_id = $1 and order_id = wanted.id",
        projection_id,
        &order_ids,
    );
    let rows = rows.fetch_all(tx).await?.into_iter();
    let orders = rows.map(|row| {
        let (version, placed_at, stages, lines) = (row.version, row.placed_at, row.stages, row.lines);
        (row.order_id, Some(CountedOrder { version, placed_at, stages, lines }))
    });
    Ok(orders.collect())
}

/// Rows of orders are locked by no other transaction. Those of sums are, and the current ones by many: they come last.
async fn write(
    tx: &mut PgConnection,
    projection_id: i64,
    orders: Vec<(Uuid, CountedOrder)>,
    additions: Additions,
) -> Result<(), Unexpected> {
    if !orders.is_empty() {
        sqlx::query!(
            "insert into counted_order (projection_id, order_id, version, placed_at, stages, lines)
             select $1, * from unnest($2::uuid[], $3::bigint[], $4::timestamptz[], $5::integer[], $6::bytea[])
             on conflict on constraint counted_order_id do update
             set version = excluded.version, stages = excluded.stages, lines = excluded.lines",
            projection_id,
            &column(&orders, |(order_id, _)| *order_id),
            &column(&orders, |(_, order)| order.version),
            &column(&orders, |(_, order)| order.placed_at),
            &column(&orders, |(_, order)| order.stages),
            &column(&orders, |(_, order)| order.lines.clone()),
        )
        .execute(&mut *tx)
        .await?;
    }
    let products = Vec::from_iter(additions.products);
    if !products.is_empty() {
        sqlx::query!(
            "insert into product_sales (projection_id, quarter, product_id, currency, sku, title, orders, units, gross)
             select $1, * from unnest($2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
               $8::bigint[], $9::bigint[])
             on conflict on constraint product_sales_quarter do update
             set sku = excluded.sku, title = excluded.title, orders = product_sales.orders + excluded.orders,
               units = product_sales.units + excluded.units, gross = product_sales.gross + excluded.gross",
            projection_id,
            &column(&products, |((quarter, _, _), _)| *quarter),
            &column(&products, |((_, product_id, _), _)| *product_id),
            &column(&products, |((_, _, currency), _)| currency.clone()),
            &column(&products, |(_, added)| added.sku.clone()),
            &column(&products, |(_, added)| added.title.clone()),
            &column(&products, |(_, added)| added.orders),
            &column(&products, |(_, added)| added.units),
            &column(&products, |(_, added)| added.gross),
        )
        .execute(&mut *tx)
        .await?;
    }
    let times = Vec::from_iter(additions.confirmation_times);
    if !times.is_empty() {
        sqlx::query!(
            "insert into confirmation_time (projection_id, quarter, bucket, orders)
             select $1, * from unnest($2::timestamptz[], $3::smallint[], $4::bigint[])
             on conflict on constraint confirmation_time_quarter do update
             set orders = confirmation_time.orders + excluded.orders",
            projection_id,
            &column(&times, |((quarter, _), _)| *quarter),
            &column(&times, |((_, bucket), _)| *bucket),
            &column(&times, |(_, orders)| *orders),
        )
        .execute(&mut *tx)
        .await?;
    }
    let funnel = Vec::from_iter(additions.funnel);
    if !funnel.is_empty() {
        sqlx::query!(
            "insert into funnel (projection_id, quarter, stage, reason, orders)
             select $1, * from unnest($2::timestamptz[], $3::text[], $4::text[], $5::bigint[])
             on conflict on constraint funnel_quarter do update set orders = funnel.orders + excluded.orders",
            projection_id,
            &column(&funnel, |((quarter, _, _), _)| *quarter),
            &column(&funnel, |((_, stage, _), _)| (*stage).to_owned()),
            &column(&funnel, |((_, _, reason), _)| reason.clone()),
            &column(&funnel, |(_, orders)| *orders),
        )
        .execute(&mut *tx)
        .await?;
    }
    let sales = Vec::from_iter(additions.sales);
    if !sales.is_empty() {
        sqlx::query!(
            "insert into sales (projection_id, quarter, currency, paid_orders, gross, refunded)
             select $1, * from unnest($2::timestamptz[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
             on conflict on constraint sales_quarter do update
             set paid_orders = sales.paid_orders + excluded.paid_orders, gross = sales.gross + excluded.gross,
               refunded = sales.refunded + excluded.refunded",
            projection_id,
            &column(&sales, |((quarter, _), _)| *quarter),
            &column(&sales, |((_, currency), _)| currency.clone()),
            &column(&sales, |(_, added)| added.paid_orders),
            &column(&sales, |(_, added)| added.gross),
            &column(&sales, |(_, added)| added.refunded),
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
