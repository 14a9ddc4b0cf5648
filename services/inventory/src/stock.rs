//! The stock of one SKU, and the statements that move units. Each takes a whole order at once, and locks rows in the order
//! of their SKUs.

use contracts::souk::inventory::v1 as proto;
use sqlx::PgConnection;
use uuid::Uuid;

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

pub(crate) fn split(lines: &[Line]) -> (Vec<String>, Vec<i32>) {
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

/// Where units go: what is added to each counter for one of them.
pub(crate) struct Move {
    available: i64,
    reserved: i64,
    sold: i64,
}

pub(crate) const SELL: Move = Move { available: 0, reserved: -1, sold: 1 };
pub(crate) const RELEASE: Move = Move { available: 1, reserved: -1, sold: 0 };
pub(crate) const TAKE_BACK: Move = Move { available: 1, reserved: 0, sold: -1 };

/// Moves all units of an order that holds some.
pub(crate) async fn shift(db: &mut PgConnection, order_id: Uuid, to: Move) -> sqlx::Result<()> {
    sqlx::query!(
        r#"with line as (
             select sku, reservation_line.quantity from reservation_line join stock using (sku)
             where order_id = $1 order by sku collate "C" for no key update of stock
           )
           update stock set available = available + quantity * $2::bigint, reserved = reserved + quantity * $3::bigint,
             sold = sold + quantity * $4::bigint
           from line where stock.sku = line.sku"#,
        order_id,
        to.available,
        to.reserved,
        to.sold,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Locks, in the order of SKUs, all rows that some orders hold units of, and those of some further lines.
pub(crate) async fn lock_all(db: &mut PgConnection, orders: &[Uuid], skus: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select sku from stock
           where sku in (select unnest($1::text[]) union select sku from reservation_line where order_id = any($2))
           order by sku collate "C" for no key update"#,
        skus,
        orders,
    )
    .fetch_all(db)
    .await?;
    Ok(())
}
