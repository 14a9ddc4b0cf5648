//! Dead letters. A parked key violates I4. A discarded dead letter exempts its order from some checks, which it would violate
//! for ever.

use std::sync::Arc;

use chassis::Unexpected;
use chassis::check::{Exemptions, Finding};
use chassis::event::dead_letter;
use sqlx::PgPool;

use crate::topics::record_name;

/// How many dead letters are read of each service: more do not change the result.
const MAX_PARKED: i64 = 1_000;
/// How many discarded dead letters are read of each service, the oldest first.
const MAX_DISCARDED: i64 = 100_000;

/// I4: a key is parked until an operator redrives or discards its dead letters. An earlier discard does not exempt it.
pub(crate) async fn check_parked(databases: &[&PgPool]) -> Result<Finding, Unexpected> {
    let mut finding = Finding::new("I4", "parked keys");
    for db in databases {
        for letter in dead_letter::list(db, None, 0, MAX_PARKED).await? {
            finding.add(letter.record.key, Some(format!("parked for {}: {}", letter.consumer, letter.error)));
        }
    }
    Ok(finding)
}

/// The dead letters that operators discarded.
#[derive(Default)]
pub(crate) struct Discarded {
    count: u64,
    /// The keys of discarded records, the orders of those keys that are payments, and the positions of records without a key.
    /// They are exempt from the parts of I4 and I5 that check whether every event was consumed. Wrong money, stock or
    /// histories, and events that were never published, are violations nevertheless.
    pub(crate) exemptions: Arc<Exemptions>,
}

impl Discarded {
    pub(crate) async fn read(databases: &[&PgPool], payment: &PgPool) -> Result<Self, Unexpected> {
        let (mut count, mut names, mut keys) = (0, Vec::new(), Vec::new());
        for db in databases {
            for record in dead_letter::discarded(db, MAX_DISCARDED).await? {
                count += 1;
                if record.key.is_nil() {
                    names.push(record_name(&record.topic, record.partition, record.offset));
                } else {
                    keys.push(record.key);
                }
            }
        }
        let orders = payment::check::orders_of(payment, &keys).await?;
        let exemptions =
            names.into_iter().chain(keys.iter().chain(&orders).map(ToString::to_string)).collect::<Exemptions>();
        Ok(Self { count, exemptions: exemptions.into() })
    }

    /// Their number, for the report.
    pub(crate) fn finding(&self) -> Finding {
        Finding { checked: self.count, ..Finding::new("I4", "discarded dead letters") }
    }
}
