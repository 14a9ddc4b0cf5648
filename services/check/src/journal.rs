//! I6 and I8 as clients see them: compares the journal of load clients' attempts with the orders.
//!
//! One line of JSON for each attempt, as soon as its outcome is known: `attempt`, `key`, `operation` (`create` for CreateOrder),
//! `outcome` (`ok`, `refused` or `unknown`), `order_id` where there was one, and `at`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use chassis::check::{Finding, Range};
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::Error;

/// The operation that makes orders.
const CREATE: &str = "create";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    /// Certainly without an effect.
    Refused,
    /// No response, or one that does not tell.
    Unknown,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) attempt: Value,
    pub(crate) key: String,
    pub(crate) operation: String,
    pub(crate) outcome: Outcome,
    #[serde(default)]
    pub(crate) order_id: Option<Uuid>,
}

/// Whether the journal has all attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    Complete,
    Partial,
}

pub(crate) struct Journal {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) coverage: Coverage,
}

impl Journal {
    /// I6 and I8. The journal is kept in memory; orders are read a `range` at a time.
    pub(crate) async fn check(&self, db: &PgPool, range: i64) -> Result<Vec<Finding>, Error> {
        let creations = self.attempts.iter().filter(|attempt| attempt.operation == CREATE);
        let keys: HashSet<_> = creations.map(|attempt| attempt.key.as_str()).collect();
        let made = order::check::orders_by_key(db, |key| keys.contains(key)).await?;
        let mut once = check_once(&self.attempts, &made);
        if self.coverage == Coverage::Complete {
            let (known, mut next) = (made.into_iter().map(|it| it.1).collect(), Some(Uuid::nil()));
            while let Some(after) = next {
                let range = Range::to_first(after, [order::check::range_end(db, after, range).await?]);
                next = range.next();
                find_unattempted(&mut once, &known, order::check::order_ids(db, range).await?);
            }
        }
        let mut orders = HashSet::new();
        let named: Vec<_> = self.attempts.iter().filter_map(|attempt| attempt.order_id).collect();
        for chunk in named.chunks(usize::try_from(range).unwrap_or(usize::MAX)) {
            orders.extend(order::check::existing(db, chunk).await?);
        }
        Ok(vec![once, check_durable(&self.attempts, &orders)])
    }
}

/// A last line without a line break is ignored: the client was killed while it wrote.
pub(crate) fn read(path: &Path) -> Result<Vec<Attempt>, Error> {
    let failed = |line: usize, why: String| Error::Journal { path: path.to_owned(), line, why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(0, error.to_string()))?;
    let lines = text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n') && *line != "\n");
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| failed(at + 1, error.to_string()))).collect()
}

/// I8: every acknowledged order exists.
pub(crate) fn check_durable(attempts: &[Attempt], orders: &HashSet<Uuid>) -> Finding {
    let mut finding = Finding::new("I8", "acknowledged attempts");
    for attempt in attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok) {
        let why = match attempt.order_id {
            Some(order_id) if orders.contains(&order_id) => None,
            Some(order_id) => {
                Some(format!("{} was acknowledged, but order {order_id} does not exist", attempt.operation))
            }
            None if attempt.operation == CREATE => Some("it was acknowledged without an order".to_owned()),
            None => None,
        };
        finding.add(&attempt.attempt, why);
    }
    finding
}

/// I6: a key created one order at most, however often it was tried.
pub(crate) fn check_once(attempts: &[Attempt], made: &[(String, Uuid)]) -> Finding {
    let mut by_key = BTreeMap::<&str, Vec<&Attempt>>::new();
    for attempt in attempts.iter().filter(|attempt| attempt.operation == CREATE) {
        by_key.entry(&attempt.key).or_default().push(attempt);
    }
    let mut made_by_key = HashMap::<&str, HashSet<Uuid>>::new();
    for (key, order_id) in made {
        made_by_key.entry(key).or_default().insert(*order_id);
    }
    let mut finding = Finding::new("I6", "keys that clients tried");
    for (key, attempts) in &by_key {
        let acknowledged = attempts.iter().filter(|it| it.outcome == Outcome::Ok).filter_map(|it| it.order_id);
        let made = made_by_key.get(key).into_iter().flatten().copied();
        let is_refused = attempts.iter().all(|attempt| attempt.outcome == Outcome::Refused);
        let ids: HashSet<_> = acknowledged.chain(made).collect();
        let why = match ids.len() {
            0 => None,
            1 if !is_refused => None,
            1 => Some("it was refused, but there is an order".to_owned()),
            count => Some(format!("it created {count} orders")),
        };
        finding.add(key, why);
    }
    finding
}

/// I6, if the journal is complete: every order was created by an attempt. `known` has the orders with an attempt.
pub(crate) fn find_unattempted(finding: &mut Finding, known: &HashSet<Uuid>, orders: Vec<Uuid>) {
    for order_id in orders.into_iter().filter(|order_id| !known.contains(order_id)) {
        finding.add(order_id, Some("no attempt in the journal created it".to_owned()));
    }
}
