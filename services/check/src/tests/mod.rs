//! Planted violations of every invariant: each test first checks sound data, which must be found sound, then plants what its
//! name says, and the check must find exactly that. Where a constraint would refuse the violation, the test removes it.
//!
//! Tables that are read by ranges have [`ROWS`] rows, and a range has [`RANGE`]; violations are planted on both sides of the end
//! of a range.

mod dead_letters;
mod figures;
mod journal;
mod notifications;
mod orders;
mod payments;
mod provider;
mod ranges;
mod recheck;
mod secrets;
mod stock;
mod topics;

use chassis::Unexpected;
use chassis::check::{Finding, Range};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use uuid::Uuid;

use crate::invariants::INVARIANTS;

const RANGE: i64 = 3;
const ROWS: u128 = 7;
/// The last row of a range, and the first of the next.
const WRONG: [u128; 2] = [3, 4];

/// Plants a violation and asserts that the check finds it in `wrong` subjects, and in none before.
async fn assert_found(
    db: &PgPool,
    sound: Vec<String>,
    violation: Vec<String>,
    wrong: usize,
    check: impl AsyncFn() -> Result<Finding, Unexpected>,
) {
    execute(db, sound).await;
    let before = check().await.expect("checked");
    assert_eq!(before.violations, [].into(), "found before it was planted");
    execute(db, violation).await;
    let after = check().await.expect("checked");
    assert_eq!(after.violations.len(), wrong, "{after:?}");
    assert_reported(&after);
}

/// The same for comparisons in memory: for each planted violation its name, and the findings without and with it.
fn assert_each_found(plants: Vec<(&str, Finding, Finding)>) {
    for (plant, sound, violated) in plants {
        assert_eq!(sound.violations, [].into(), "{plant}: found before it was planted");
        assert_eq!(violated.violations.len(), 1, "{plant}: {violated:?}");
        assert_reported(&violated);
    }
}

/// Asserts that the report has a line for its invariant.
fn assert_reported(finding: &Finding) {
    assert!(INVARIANTS.iter().any(|invariant| invariant.name == finding.invariant), "{finding:?}");
}

async fn execute(db: &PgPool, statements: Vec<String>) {
    for statement in statements {
        db.execute(AssertSqlSafe(statement.clone())).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

fn all(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|statement| (*statement).to_owned()).collect()
}

/// The same statements for each of these rows.
fn for_each<const N: usize>(
    rows: impl IntoIterator<Item = u128>,
    statements: impl Fn(Uuid) -> [String; N],
) -> Vec<String> {
    rows.into_iter().map(id).flat_map(statements).collect()
}

/// The id of a row, made in that second after 1970.
fn id(row: u128) -> Uuid {
    Uuid::from_u128((row * 1_000) << 80 | 0x7000_8000_0000_0000_0000)
}

/// Checks all ranges, one after the other.
async fn by_ranges(
    end: impl AsyncFn(Uuid) -> Result<Option<Uuid>, Unexpected>,
    check: impl AsyncFn(Range) -> Result<Finding, Unexpected>,
) -> Result<Finding, Unexpected> {
    let range = Range::to_first(Uuid::nil(), [end(Uuid::nil()).await?]);
    let (mut finding, mut next) = (check(range).await?, range.next());
    while let Some(after) = next {
        let range = Range::to_first(after, [end(after).await?]);
        finding.merge(check(range).await?);
        next = range.next();
    }
    Ok(finding)
}
