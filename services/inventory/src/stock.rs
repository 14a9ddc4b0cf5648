//! The stock of one SKU, and the statements that move units. Each takes a whole order at once; rows are locked in the
//! order of their SKUs, so that two orders of the same goods never wait for each other in a circle.

use contracts::souk::inventory::v1 as proto;
use sqlx::PgConnection;

/// So many units of a SKU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) quantity: i32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    pub(crate) sku: String,
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) sold: i64,
    pub(crate) received: i64,
    pub(crate) written_off: i64,
}

/// A line that cannot be held.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shortage {
    pub(crate) sku: String,
    pub(crate) requested: i32,
    pub(crate) available: i64,
}

impl Level {
    pub(crate) fn into_proto(self) -> proto::StockLevel {
        proto::StockLevel {
            sku: self.sku,
            available: self.available,
            reserved: self.reserved,
            sold: self.sold,
            received: self.received,
            written_off: self.written_off,
        }
    }
}

fn split(lines: &[Line]) -> (Vec<String>, Vec<i32>) {
    lines.iter().map(|line| (line.sku.clone(), line.quantity)).unzip()
}

/// Locks the rows of an order and says which lines are short. A SKU that was never received has none available.
pub(crate) async fn lock(db: &mut PgConnection, lines: &[Line]) -> sqlx::Result<Vec<Shortage>> {
    let (skus, _) = split(lines);
    let rows = sqlx::query!(
        r#"select sku, available from stock where sku = any($1) order by sku collate "C" for no key update"#,
        &skus,
    )
    .fetch_all(db)
    .await?;
    let short = lines.iter().filter_map(|line| {
        let available = rows.iter().find(|row| row.sku == line.sku).map_or(0, |row| row.available);
        let shortage = Shortage { sku: line.sku.clone(), requested: line.quantity, available };
        (available < i64::from(line.quantity)).then_some(shortage)
    });
    Ok(short.collect())
}

/// available -> reserved. The rows are locked already.
pub(crate) async fn hold(db: &mut PgConnection, lines: &[Line]) -> sqlx::Result<()> {
    let (skus, quantities) = split(lines);
    sqlx::query!(
        "update stock set available = available - quantity, reserved = reserved + quantity
         from unnest($1::text[], $2::integer[]) as line (sku, quantity) where stock.sku = line.sku",
        &skus,
        &quantities,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// reserved -> sold.
pub(crate) async fn sell(db: &mut PgConnection, lines: &[Line]) -> sqlx::Result<()> {
    let (skus, quantities) = split(lines);
    lock(db, lines).await?;
    sqlx::query!(
        "update stock set reserved = reserved - quantity, sold = sold + quantity
         from unnest($1::text[], $2::integer[]) as line (sku, quantity) where stock.sku = line.sku",
        &skus,
        &quantities,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// reserved -> available.
pub(crate) async fn release(db: &mut PgConnection, lines: &[Line]) -> sqlx::Result<()> {
    let (skus, quantities) = split(lines);
    lock(db, lines).await?;
    sqlx::query!(
        "update stock set reserved = reserved - quantity, available = available + quantity
         from unnest($1::text[], $2::integer[]) as line (sku, quantity) where stock.sku = line.sku",
        &skus,
        &quantities,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// sold -> available.
pub(crate) async fn take_back(db: &mut PgConnection, lines: &[Line]) -> sqlx::Result<()> {
    let (skus, quantities) = split(lines);
    lock(db, lines).await?;
    sqlx::query!(
        "update stock set sold = sold - quantity, available = available + quantity
         from unnest($1::text[], $2::integer[]) as line (sku, quantity) where stock.sku = line.sku",
        &skus,
        &quantities,
    )
    .execute(db)
    .await?;
    Ok(())
}
