//! Events on their way in. Each arrives at least once and has its effect once: up to which version a consumer has taken in
//! a stream is moved in the transaction of the effect.
//!
//! Records that wait together share a transaction, which costs two statements whatever their number. If it fails they are
//! taken one by one; one that never will be handled becomes a dead letter and parks its key, and the others go on.

use std::collections::HashMap;
use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::PgConnection;
use tracing::Instrument;
use uuid::Uuid;

use crate::clock::Clock;
use crate::consume::{Consumer, HandleError, Record};
use crate::dead_letter;
use crate::error::Unexpected;
use crate::metrics::{self, Of};
use crate::telemetry;

/// How many records share a transaction at most.
const GROUP: usize = 32;

static HANDLED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("events_handled", "Events that took effect, by consumer", Family::default()));
static REPEATED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("events_repeated", "Events that had taken effect before", Family::default()));

/// Takes in records of one partition, in their order. An error is one that will pass: the same records may be handed in
/// again, and those that took effect are skipped.
pub async fn take_in(consumer: &Consumer, clock: &Clock, records: &[Record]) -> Result<(), Unexpected> {
    let wanted: Vec<_> = records.iter().filter(|record| consumer.handler.wants(&record.kind)).collect();
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
    let error = match together(consumer, clock, &[record]).await {
        Ok(()) => return Ok(()),
        Err(HandleError::Unexpected(error)) if error.will_pass() => return Err(error),
        Err(error) => error.to_string(),
    };
    tracing::error!(
        consumer = consumer.name,
        key = %record.key,
        kind = record.kind,
        event_id = %record.event_id,
        error,
        "an event cannot be handled: it is a dead letter now, and its key is parked"
    );
    let mut db = consumer.db.acquire().await?;
    dead_letter::insert(&mut db, consumer.name, clock, record, &error).await?;
    Ok(())
}

/// What is known of a stream before its records are handled.
struct Stream {
    version: i64,
    parked: bool,
}

async fn together(consumer: &Consumer, clock: &Clock, records: &[&Record]) -> Result<(), HandleError> {
    let mut tx = consumer.db.begin().await?;
    let before = read(&mut tx, consumer.name, records).await?;
    let (mut versions, mut handled, mut repeated) = (HashMap::<Uuid, i64>::new(), 0, 0);
    for record in records {
        let stream = before.get(&record.key);
        let known = stream.map_or(0, |stream| stream.version);
        if record.version <= *versions.get(&record.key).unwrap_or(&known) {
            repeated += 1;
            continue;
        }
        let parked = stream.is_some_and(|stream| stream.parked);
        if parked && dead_letter::is_parked(&mut tx, consumer.name, record.key).await? {
            dead_letter::insert(&mut tx, consumer.name, clock, record, "parked").await?;
            continue;
        }
        handle(consumer, &mut tx, record).await?;
        versions.insert(record.key, record.version);
        handled += 1;
    }
    advance(&mut tx, consumer.name, &versions, |key| before.get(key).map_or(0, |stream| stream.version)).await?;
    tx.commit().await?;
    HANDLED.get_or_create(&Of::new(consumer.name)).inc_by(handled);
    REPEATED.get_or_create(&Of::new(consumer.name)).inc_by(repeated);
    consumer.handler.committed();
    Ok(())
}

/// Hands a record to its handler, as a part of what its writer was doing.
pub(crate) async fn handle(consumer: &Consumer, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
    let span = tracing::info_span!("event", consumer = consumer.name, kind = record.kind, key = %record.key);
    telemetry::adopt_parent(&span, record.traceparent.as_deref());
    consumer.handler.handle(tx, record).instrument(span).await
}

async fn read(
    tx: &mut PgConnection,
    consumer: &str,
    records: &[&Record],
) -> Result<HashMap<Uuid, Stream>, sqlx::Error> {
    let mut keys: Vec<_> = records.iter().map(|record| record.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let rows = sqlx::query!(
        r#"select asked.stream as "stream!", coalesce(inbox.version, 0) as "version!",
             exists (select from dead_letter where consumer = $1 and key = asked.stream) as "parked!"
           from unnest($2::uuid[]) as asked (stream)
             left join inbox on inbox.consumer = $1 and inbox.stream = asked.stream"#,
        consumer,
        &keys,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.stream, Stream { version: row.version, parked: row.parked })).collect())
}

/// Moves the versions on, from where they were read. Somebody else who took in the same records at the same time, such as
/// a replica that does not know yet that it lost the partition, makes this fail, and with it the transaction.
pub(crate) async fn advance(
    tx: &mut PgConnection,
    consumer: &str,
    versions: &HashMap<Uuid, i64>,
    before: impl Fn(&Uuid) -> i64,
) -> Result<(), Unexpected> {
    if versions.is_empty() {
        return Ok(());
    }
    let mut moves: Vec<_> = versions.iter().map(|(key, version)| (*key, *version, before(key))).collect();
    // In one order everywhere, so that two who write the same rows cannot wait for each other.
    moves.sort_unstable();
    let keys: Vec<_> = moves.iter().map(|it| it.0).collect();
    let after: Vec<_> = moves.iter().map(|it| it.1).collect();
    let before: Vec<_> = moves.iter().map(|it| it.2).collect();
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
