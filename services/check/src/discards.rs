//! Dead letters that operators discarded. What is wrong with an order because an event of it was discarded, or with a record
//! because it cannot be read, was looked at by somebody, and is no violation for ever.

use std::sync::Arc;

use chassis::Unexpected;
use chassis::check::{Excuses, Finding};
use chassis::event::dead_letter;
use sqlx::PgPool;

use super::events::record_name;

/// How many are read of each service: those that were discarded first.
const MOST: i64 = 100_000;

#[derive(Default)]
pub(crate) struct Discards {
    count: u64,
    /// The keys of the records, the orders of those that are payments, and the names of those without a key. I4 and I5 ask
    /// whether everything arrived, and these were told not to. What is wrong with money, stock or a history is wrong whoever
    /// discarded what, and so is an event that was never published.
    pub(crate) excuses: Arc<Excuses>,
}

impl Discards {
    pub(crate) async fn read(databases: &[&PgPool], payment: &PgPool) -> Result<Self, Unexpected> {
        let (mut count, mut names, mut keys) = (0, Vec::new(), Vec::new());
        for db in databases {
            for record in dead_letter::discarded(db, MOST).await? {
                count += 1;
                if record.key.is_nil() {
                    names.push(record_name(&record.topic, record.partition, record.offset));
                } else {
                    keys.push(record.key);
                }
            }
        }
        let orders = payment::check::orders_of(payment, &keys).await?;
        let excuses = names.into_iter().chain(keys.iter().chain(&orders).map(ToString::to_string)).collect::<Excuses>();
        Ok(Self { count, excuses: excuses.into() })
    }

    /// For the report: how many there are.
    pub(crate) fn finding(&self) -> Finding {
        Finding { count: self.count, ..Finding::new("I4", "discarded dead letters") }
    }
}
