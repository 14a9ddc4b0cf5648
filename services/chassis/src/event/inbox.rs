//! Consumes events. Each is delivered at least once and takes effect once: for each consumer and key, the inbox has the last
//! consumed version, and is updated in the transaction of the effect, or of the dead letter.
//!
//! Records that wait together share a transaction, so the inbox costs two statements for all of them. If it fails, they are
//! consumed one by one; a poison message becomes a dead letter and parks its key, and other keys go on.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::PgConnection;
use tracing::Span;
use uuid::Uuid;

use crate::boot::clock::Clock;
use crate::boot::metrics::{self, ByConsumer};
use crate::boot::telemetry;
use crate::event::consumer::{Consumer, Due, HandleError, Record};
use crate::event::dead_letter;
use crate::rpc::error::Unexpected;

/// How many records share a transaction at most.
pub const MAX_PER_TRANSACTION: usize = 32;
/// The error of a dead letter whose key was parked already.
const PARKED: &str = "parked";

static HANDLED: LazyLock<Family<ByConsumer, Counter>> = LazyLock::new(|| {
    metrics::register(
        "events_handled",
        "Events passed to the handler and committed, without redriven ones",
        Family::default(),
    )
});
static REPEATED: LazyLock<Family<ByConsumer, Counter>> =
    LazyLock::new(|| metrics::register("events_repeated", "Duplicates of consumed events", Family::default()));

/// Consumes records of one partition, in order. An error is transient: the same records may be passed again, and those that
/// took effect are skipped.
pub async fn consume(consumer: &Consumer, clock: &Clock, records: &[Record]) -> Result<(), Unexpected> {
    let wanted: Vec<_> = records.iter().filter(|record| consumer.handler.wants(&record.event_type)).collect();
    for group in wanted.chunks(MAX_PER_TRANSACTION) {
        if group.len() > 1 && consume_group(consumer, clock, group).await.is_ok() {
            continue;
        }
        for record in group {
            consume_one(consumer, clock, record).await?;
        }
    }
    Ok(())
}

async fn consume_one(consumer: &Consumer, clock: &Clock, record: &Record) -> Result<(), Unexpected> {
    match consume_group(consumer, clock, &[record]).await {
        Ok(()) => Ok(()),
        Err(HandleError::Unexpected(error)) if error.will_pass() => Err(error),
        Err(error) => add_dead_letter(consumer, clock, record, &error.to_string()).await,
    }
}

/// Makes a poison message a dead letter, which parks its key.
async fn add_dead_letter(consumer: &Consumer, clock: &Clock, record: &Record, error: &str) -> Result<(), Unexpected> {
    let mut tx = consumer.db.begin().await?;
    let disposition = advance(&mut tx, consumer.name, &[record]).await?;
    let error = match disposition[..] {
        // Another replica has consumed it meanwhile.
        [Disposition::Repeated] => return Ok(()),
        [Disposition::Parked] => PARKED,
        _ => error,
    };
    dead_letter::insert(&mut tx, consumer.name, clock, record, error).await?;
    tx.commit().await?;
    log_dead_letter(consumer, record, error);
    Ok(())
}

fn log_dead_letter(consumer: &Consumer, record: &Record, error: &str) {
    tracing::error!(
        consumer = consumer.name,
        key = %record.key,
        event_type = record.event_type,
        version = record.version,
        event_id = %record.event_id,
        error,
        "the event became a dead letter; its key is parked"
    );
}

async fn consume_group(consumer: &Consumer, clock: &Clock, records: &[&Record]) -> Result<(), HandleError> {
    let mut tx = consumer.db.begin().await?;
    let dispositions = advance(&mut tx, consumer.name, records).await?;
    let (mut due, mut parked, mut repeated) = (Vec::new(), Vec::new(), 0);
    for (record, disposition) in records.iter().zip(dispositions) {
        match disposition {
            Disposition::Due => due.push(Due { record, span: span(consumer, record) }),
            Disposition::Parked => parked.push(record),
            Disposition::Repeated => repeated += 1,
        }
    }
    if !due.is_empty() {
        handle_all(consumer, &mut tx, &due).await?;
    }
    for record in &parked {
        dead_letter::insert(&mut tx, consumer.name, clock, record, PARKED).await?;
    }
    tx.commit().await?;
    HANDLED.get_or_create(&ByConsumer::new(consumer.name)).inc_by(due.len() as u64);
    REPEATED.get_or_create(&ByConsumer::new(consumer.name)).inc_by(repeated);
    for record in parked {
        log_dead_letter(consumer, record, PARKED);
    }
    consumer.handler.committed();
    Ok(())
}

/// A panic of the handler fails its events, and must not end the consumer.
async fn handle_all(consumer: &Consumer, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
    let handled = AssertUnwindSafe(consumer.handler.handle_all(tx, due)).catch_unwind().await;
    handled.unwrap_or_else(|_| Err(HandleError::Poisoned("the handler panicked".to_owned())))
}

/// Passes one record to the handler.
pub(crate) async fn handle(consumer: &Consumer, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
    handle_all(consumer, tx, &[Due { record, span: span(consumer, record) }]).await
}

fn span(consumer: &Consumer, record: &Record) -> Span {
    let span =
        tracing::info_span!("event", consumer = consumer.name, event_type = record.event_type, key = %record.key);
    telemetry::adopt_parent(&span, record.traceparent.as_deref());
    span
}

/// What to do with a record.
#[derive(Clone, Copy)]
enum Disposition {
    Due,
    /// Its key is parked, so it becomes a dead letter, too.
    Parked,
    Repeated,
}

/// Advances the inbox to the versions of these records, and returns what to do with each. The inbox rows stay locked until the
/// commit, so that no other replica handles the same events at the same time.
async fn advance(tx: &mut PgConnection, consumer: &str, records: &[&Record]) -> Result<Vec<Disposition>, Unexpected> {
    let mut keys = read(tx, consumer, records).await?;
    for (key, state) in keys.iter_mut().filter(|(_, state)| state.parked) {
        state.parked = dead_letter::is_parked(tx, consumer, *key).await?;
    }
    let mut advanced = HashMap::<Uuid, i64>::new();
    let dispositions = records.iter().map(|record| {
        let state = keys.get(&record.key);
        let known = state.map_or(0, |state| state.version);
        if record.version <= *advanced.get(&record.key).unwrap_or(&known) {
            return Disposition::Repeated;
        }
        advanced.insert(record.key, record.version);
        if state.is_some_and(|state| state.parked) { Disposition::Parked } else { Disposition::Due }
    });
    let dispositions = dispositions.collect();
    let moves = advanced.into_iter().map(|(key, after)| {
        let before = keys.get(&key).map_or(0, |state| state.version);
        (key, before, after)
    });
    write_versions(tx, consumer, moves.collect()).await?;
    Ok(dispositions)
}

/// The state of a key before its records are handled. The column `stream` of the inbox is the key.
struct KeyState {
    version: i64,
    parked: bool,
}

async fn read(
    tx: &mut PgConnection,
    consumer: &str,
    records: &[&Record],
) -> Result<BTreeMap<Uuid, KeyState>, sqlx::Error> {
    let mut keys: Vec<_> = records.iter().map(|record| record.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let rows = sqlx::query!(
        r#"select asked.stream as "stream!", coalesce(inbox.version, 0) as "version!",
             exists (select from dead_letter where consumer = $1 and key = asked.stream) as "parked!"
           from (select stream from unnest($2::uuid[]) as stream limit cardinality($2)) as asked
             left join inbox on inbox.consumer = $1 and inbox.stream = asked.stream"#,
        consumer,
        &keys,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.stream, KeyState { version: row.version, parked: row.parked })).collect())
}

/// Updates the inbox from the versions that were read. If another replica consumes the same records at the same time, such as
/// one that does not know yet that it lost the partition in a rebalance, this waits for it and then fails.
async fn write_versions(
    tx: &mut PgConnection,
    consumer: &str,
    mut moves: Vec<(Uuid, i64, i64)>,
) -> Result<(), Unexpected> {
    if moves.is_empty() {
        return Ok(());
    }
    // A fixed order, so that two transactions that write the same rows cannot deadlock.
    moves.sort_unstable();
    let keys: Vec<_> = moves.iter().map(|it| it.0).collect();
    let before: Vec<_> = moves.iter().map(|it| it.1).collect();
    let after: Vec<_> = moves.iter().map(|it| it.2).collect();
    let done = sqlx::query!(
        "insert into inbox (consumer, stream, version)
         select $1, stream, version from unnest($2::uuid[], $3::bigint[]) as moved (stream, version)
         on conflict on constraint inbox_stream do update set version = excluded.version
         where inbox.version =
           (select expected from unnest($2::uuid[], $4::bigint[]) as seen (stream, expected)
            where seen.stream = inbox.stream)",
        consumer,
        &keys,
        &after,
        &before,
    )
    .execute(tx)
    .await?;
    if done.rows_affected() == keys.len() as u64 {
        return Ok(());
    }
    let source = "it consumes the same events".into();
    Err(Unexpected::Peer { peer: "another replica", source })
}
