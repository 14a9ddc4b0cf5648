//! The stock of SKUs: how rows are locked, and what is moved between their counters.

use std::collections::{BTreeMap, HashMap};

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
    pub(crate) reason: &'static str,
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

/// Where units go: what is added to each counter for one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) sold: i64,
}

pub(crate) const HOLD: Move = Move { available: -1, reserved: 1, sold: 0 };
pub(crate) const SELL: Move = Move { available: 0, reserved: -1, sold: 1 };
pub(crate) const RELEASE: Move = Move { available: 1, reserved: -1, sold: 0 };
pub(crate) const TAKE_BACK: Move = Move { available: 1, reserved: 0, sold: -1 };

/// What is available while rows are locked, and what is to be done to them: one sum for each SKU, however many orders.
#[derive(Debug, Default)]
pub(crate) struct Shelves {
    available: HashMap<String, i64>,
    pub(crate) moves: BTreeMap<String, Move>,
}

impl Shelves {
    /// Locks rows, in the order of SKUs.
    pub(crate) async fn lock(db: &mut PgConnection, skus: &[String]) -> sqlx::Result<Self> {
        let rows = sqlx::query!(
            r#"select sku, available from stock where sku = any($1) order by sku collate "C" for no key update"#,
            skus,
        );
        let available = rows.fetch_all(db).await?.into_iter().map(|row| (row.sku, row.available)).collect();
        Ok(Self { available, moves: BTreeMap::new() })
    }

    /// Of a SKU that was never received there is nothing.
    pub(crate) fn available(&self, sku: &str) -> i64 {
        self.available.get(sku).copied().unwrap_or_default()
    }

    pub(crate) fn shift(&mut self, line: &Line, to: Move) {
        let quantity = i64::from(line.quantity);
        *self.available.entry(line.sku.clone()).or_default() += to.available * quantity;
        let sum = self.moves.entry(line.sku.clone()).or_default();
        sum.available += to.available * quantity;
        sum.reserved += to.reserved * quantity;
        sum.sold += to.sold * quantity;
    }
}

/// What customers hold of some SKUs. Of rows that are locked, or it may have changed by the time it is used.
pub(crate) async fn held(
    db: &mut PgConnection,
    user_ids: &[Uuid],
    skus: &[String],
) -> sqlx::Result<HashMap<(Uuid, String), i64>> {
    let rows = sqlx::query!(
        r#"select user_id as "user_id!", sku, sum(quantity) as "quantity!"
           from reservation join reservation_line using (order_id)
           where state = 'HELD' and user_id = any($1) and sku = any($2) group by user_id, sku"#,
        user_ids,
        skus,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| ((row.user_id, row.sku), row.quantity)).collect())
}
