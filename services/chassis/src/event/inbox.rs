//! Events on their way in. Each arrives at least once and has its effect once: up to which version a consumer answers for
//! a stream is moved in the transaction of the effect, or of the dead letter.
//!
//! Records that wait together share a transaction, which costs two statements whatever their number. If it fails they are
//! taken one by one; one that never will be handled becomes a dead letter and parks its key, and the others go on.

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
use crate::boot::metrics::{self, Of};
use crate::boot::telemetry;
use crate::event::consumer::{Consumer, Due, HandleError, Record};
use crate::event::dead_letter;
use crate::rpc::error::Unexpected;

/// How many records share a transaction at most.
const GROUP: usize = 32;
/// The error of a dead letter that is one only because its key had others.
const BEHIND: &str = "parked";

static HANDLED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("events_handled", "Events that took effect, by consumer", Family::default()));
static REPEATED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("events_repeated", "Events that had taken effect before", Family::default()));

/// Takes in records of one partition, in their order. An error is one that will pass: the same records may be handed in
/// again, and those that took effect are skipped.
pub async fn take_in(consumer: &Consumer, clock: &Clock, records: &[Record]) -> Result<(), Unexpected> {
    let wanted: Vec<_> = records.iter().filter(|record| consumer.handler.wants(&record.event_type)).collect();
    for group in wanted.chunks(GROUP) {
        if group.len() > 1 && together(consumer, clock, group).await.is_ok() {
            continue;
        }
        for record in group {
            alone(consumer, clock, record).await?;
        }
    }
    Ok(())
}

async fn alone(consumer: &Consumer, clock: &Clock, record: &Record) -> Result<(), Unexpected> {
    match together(consumer, clock, &[record]).await {
        Ok(()) => Ok(()),
        Err(HandleError::Unexpected(error)) if error.will_pass() => Err(error),
        Err(error) => bury(consumer, clock, record, &error.to_string()).await,
    }
}

/// Makes a record that never will be handled a dead letter, and thereby parks its key.
async fn bury(consumer: &Consumer, clock: &Clock, record: &Record, error: &str) -> Result<(), Unexpected> {
    let mut tx = consumer.db.begin().await?;
    let fate = admit(&mut tx, consumer.name, &[record]).await?;
    let error = match fate[..] {
        // Whoever took it in meanwhile had better luck, or buried it.
        [Fate::Repeated] => return Ok(()),
        [Fate::Parked] => BEHIND,
        _ => error,
    };
    dead_letter::insert(&mut tx, consumer.name, clock, record, error).await?;
    tx.commit().await?;
    complain(consumer, record, error);
    Ok(())
}

fn complain(consumer: &Consumer, record: &Record, error: &str) {
    tracing::error!(
        consumer = consumer.name,
        key = %record.key,
        event_type = record.event_type,
        version = record.version,
        event_id = %record.event_id,
        error,
        "an event is a dead letter now, and its key is parked"
    );
}

async fn together(consumer: &Consumer, clock: &Clock, records: &[&Record]) -> Result<(), HandleError> {
    let mut tx = consumer.db.begin().await?;
    let fates = admit(&mut tx, consumer.name, records).await?;
    let (mut due, mut parked, mut repeated) = (Vec::new(), Vec::new(), 0);
    for (record, fate) in records.iter().zip(fates) {
        match fate {
            Fate::Due => due.push(Due { record, span: span(consumer, record) }),
            Fate::Parked => parked.push(record),
            Fate::Repeated => repeated += 1,
        }
    }
    if !due.is_empty() {
        handle_all(consumer, &mut tx, &due).await?;
    }
    for record in &parked {
        dead_letter::insert(&mut tx, consumer.name, clock, record, BEHIND).await?;
    }
    tx.commit().await?;
    HANDLED.get_or_create(&Of::new(consumer.name)).inc_by(due.len() as u64);
    REPEATED.get_or_create(&Of::new(consumer.name)).inc_by(repeated);
    for record in parked {
        complain(consumer, record, BEHIND);
    }
    consumer.handler.committed();
    Ok(())
}

/// What panics on one event must not end the work on all others.
async fn handle_all(consumer: &Consumer, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
    let handled = AssertUnwindSafe(consumer.handler.handle_all(tx, due)).catch_unwind().await;
    handled.unwrap_or_else(|_| Err(HandleError::Poisoned("the handler panicked".to_owned())))
}

/// Hands a record to its handler, as a part of what its writer was doing.
pub(crate) async fn handle(consumer: &Consumer, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
    handle_all(consumer, tx, &[Due { record, span: span(consumer, record) }]).await
}

fn span(consumer: &Consumer, record: &Record) -> Span {
    let span =
        tracing::info_span!("event", consumer = consumer.name, event_type = record.event_type, key = %record.key);
    telemetry::adopt_parent(&span, record.traceparent.as_deref());
    span
}

/// What is to be done with a record.
#[derive(Clone, Copy)]
enum Fate {
    Due,
    /// Its key has dead letters, and it goes behind them.
    Parked,
    Repeated,
}

/// Answers for records from here on: moves the versions of their streams on, and says what is left to do. The rows of the
/// inbox are held from here to the commit, so that no handler ever meets another one at work on the same event.
async fn admit(tx: &mut PgConnection, consumer: &str, records: &[&Record]) -> Result<Vec<Fate>, Unexpected> {
    let mut streams = read(tx, consumer, records).await?;
    for (key, stream) in streams.iter_mut().filter(|(_, stream)| stream.parked) {
        stream.parked = dead_letter::is_parked(tx, consumer, *key).await?;
    }
    let mut moved = HashMap::<Uuid, i64>::new();
    let fates = records.iter().map(|record| {
        let stream = streams.get(&record.key);
        let known = stream.map_or(0, |stream| stream.version);
        if record.version <= *moved.get(&record.key).unwrap_or(&known) {
            return Fate::Repeated;
        }
        moved.insert(record.key, record.version);
        if stream.is_some_and(|stream| stream.parked) { Fate::Parked } else { Fate::Due }
    });
    let fates = fates.collect();
    let moves = moved.into_iter().map(|(key, after)| {
        let before = streams.get(&key).map_or(0, |stream| stream.version);
        (key, before, after)
    });
    advance(tx, consumer, moves.collect()).await?;
    Ok(fates)
}

/// What is known of a stream before its records are handled.
struct Stream {
    version: i64,
    parked: bool,
}

async fn read(
    tx: &mut PgConnection,
    consumer: &str,
    records: &[&Record],
) -> Result<BTreeMap<Uuid, Stream>, sqlx::Error> {
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
    Ok(rows.into_iter().map(|row| (row.stream, Stream { version: row.version, parked: row.parked })).collect())
}

/// Moves streams on, from the versions at which they were read. If somebody else takes in the same records at the same
/// time, such as a replica that does not know yet that it lost the partition, this waits for it and then fails.
async fn advance(tx: &mut PgConnection, consumer: &str, mut moves: Vec<(Uuid, i64, i64)>) -> Result<(), Unexpected> {
    if moves.is_empty() {
        return Ok(());
    }
    // In one order everywhere, so that two who write the same rows cannot wait for each other.
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
    let source = "the same events are being taken in elsewhere".into();
    Err(Unexpected::Peer { peer: "another replica", source })
}
