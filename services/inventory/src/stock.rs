//! The stock of SKUs: how rows are locked, and how their counters change.

use std::collections::{BTreeMap, HashMap};

use chassis::Unexpected;
use contracts::souk::inventory::v1 as proto;
use sqlx::PgConnection;

use crate::ids::UserId;
use crate::low_stock::{Fallen, Threshold};

/// A number of units of one SKU.
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

impl Shortage {
    pub(crate) fn into_proto(self) -> proto::StockShortage {
        let Self { sku, requested, available, reason } = self;
        proto::StockShortage { sku, requested, available, reason: reason.to_owned() }
    }
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

/// What is added to each counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) sold: i64,
    pub(crate) written_off: i64,
}

/// For one unit.
pub(crate) const HOLD: Change = Change { available: -1, reserved: 1, sold: 0, written_off: 0 };
pub(crate) const SELL: Change = Change { available: 0, reserved: -1, sold: 1, written_off: 0 };
pub(crate) const RELEASE: Change = Change { available: 1, reserved: -1, sold: 0, written_off: 0 };
pub(crate) const UNSELL: Change = Change { available: 1, reserved: 0, sold: -1, written_off: 0 };
pub(crate) const WRITE_OFF: Change = Change { available: 0, reserved: 0, sold: -1, written_off: 1 };

/// Locked rows of stock: the available units, and the changes to write, summed up for each SKU.
#[derive(Debug, Default)]
pub(crate) struct LockedStock {
    rows: HashMap<String, Row>,
    pub(crate) changes: BTreeMap<String, Change>,
}

#[derive(Debug, Default)]
struct Row {
    available: i64,
    /// Before the changes.
    before: i64,
    threshold: Option<Threshold>,
}

impl LockedStock {
    /// Locks rows, in the order of SKUs. For the limit see [`Reservation::lock_all`](crate::reservation::Reservation::lock_all).
    pub(crate) async fn lock(db: &mut PgConnection, skus: &[String]) -> Result<Self, Unexpected> {
        let rows = sqlx::query!(
            r#"select stock.sku, available, low_at, low_id, low_version
               from (select sku from unnest($1::text[]) as sku limit cardinality($1)) as wanted
                 join stock on stock.sku = wanted.sku
               order by stock.sku collate "C" for no key update of stock"#,
            skus,
        );
        let rows = rows.fetch_all(db).await?.into_iter().map(|row| {
            let threshold = Threshold::of(row.low_at, row.low_id, row.low_version);
            (row.sku, Row { available: row.available, before: row.available, threshold })
        });
        Ok(Self { rows: rows.collect(), changes: BTreeMap::new() })
    }

    /// 0 for a SKU that was never received.
    pub(crate) fn available(&self, sku: &str) -> i64 {
        self.rows.get(sku).map_or(0, |row| row.available)
    }

    pub(crate) fn add(&mut self, line: &Line, change: Change) {
        let quantity = i64::from(line.quantity);
        self.rows.entry(line.sku.clone()).or_default().available += change.available * quantity;
        let sum = self.changes.entry(line.sku.clone()).or_default();
        sum.available += change.available * quantity;
        sum.reserved += change.reserved * quantity;
        sum.sold += change.sold * quantity;
        sum.written_off += change.written_off * quantity;
    }

    /// The SKUs that became low by the changes.
    pub(crate) fn fallen(&self) -> Vec<Fallen> {
        let fallen = |(sku, row): (&String, &Row)| row.threshold.as_ref()?.fallen(sku, row.before, row.available);
        self.rows.iter().filter_map(fallen).collect()
    }
}

/// How many units customers hold of some SKUs. The rows of the stock must be locked, or it may change before it is used.
pub(crate) async fn units_held(
    db: &mut PgConnection,
    user_ids: &[UserId],
    skus: &[String],
) -> Result<HashMap<(UserId, String), i64>, Unexpected> {
    let rows = sqlx::query!(
        r#"select user_id as "user_id!: UserId", sku, sum(quantity) as "quantity!"
           from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
             join reservation on user_id = wanted.id join reservation_line using (order_id)
           where state = 'HELD' and sku = any($2) group by user_id, sku"#,
        user_ids as &[UserId],
        skus,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| ((row.user_id, row.sku), row.quantity)).collect())
}
