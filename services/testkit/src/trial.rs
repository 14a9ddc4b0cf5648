//! Trials of a change, of an RPC or of a consumer: it happens once or not at all, also if its session ends before the commit.

use std::fmt::Debug;

use chassis::event::{Record, inbox};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::database::digest;
use crate::{Kit, reason};

/// Tries an RPC that takes an idempotency key. `call` makes the call, always as the same caller; `other` has the key of
/// `request` and another body.
pub async fn try_key<Q, R, F>(db: &PgPool, request: Q, other: Q, call: impl Fn(Q) -> F)
where
    Q: Clone,
    R: Debug + PartialEq + Send + 'static,
    F: Future<Output = Result<R, Status>> + Send + 'static,
{
    let before = digest(db).await;
    // A transaction writes the stored response last: here everything else is done, and nothing is committed.
    let holdup = hold_up(db, "idempotency").await;
    let mut cut_off = tokio::spawn(call(request.clone()));
    end_session(db, held_up(db, &mut cut_off).await).await;
    let status = cut_off.await.expect("no panic").expect_err("its session was ended before it committed");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some(), "and when to come back");
    assert_eq!(digest(db).await, before, "what was cut off never happened");

    let mut first = tokio::spawn(call(request.clone()));
    held_up(db, &mut first).await;
    let twin = call(request.clone()).await.expect_err("the first is not done");
    assert_eq!(twin.code(), Code::Aborted, "{twin:?}");
    assert!(reason(&twin).starts_with("REQUEST_IN_PROGRESS@"), "{twin:?}");
    assert!(twin.get_details_retry_info().is_some(), "and when to come back");
    holdup.rollback().await.expect("rolled back");
    let first = first.await.expect("no panic").expect("nothing is in its way any more");

    let after = digest(db).await;
    assert_ne!(after, before, "now it happened");
    assert_eq!(call(request).await.expect("the same request"), first, "the same response");
    let reused = call(other).await.expect_err("another request under this key");
    assert_eq!(reused.code(), Code::InvalidArgument, "{reused:?}");
    assert!(reason(&reused).starts_with("IDEMPOTENCY_KEY_REUSED@"), "{reused:?}");
    assert_eq!(digest(db).await, after, "once is enough");
}

/// Tries an event whose effect publishes another: if the session ends before that, it has no effect; delivered again, it has
/// one.
pub async fn try_event(kit: &Kit, record: &Record) {
    try_event_at(kit, record, "outbox").await;
}

/// The same of an event whose effect writes last to this table, and publishes nothing.
pub async fn try_event_at(kit: &Kit, record: &Record, table: &str) {
    let (consumer, clock) = (kit.consumer(), &kit.context.clock);
    let db = &consumer.db;
    let before = digest(db).await;
    let holdup = hold_up(db, table).await;
    let mut cut_off = tokio::spawn({
        let (consumer, clock, record) = (consumer.clone(), clock.clone(), record.clone());
        async move { inbox::consume(&consumer, &clock, &[record]).await }
    });
    end_session(db, held_up(db, &mut cut_off).await).await;
    cut_off.await.expect("no panic").expect_err("its session was ended before it committed");
    assert_eq!(digest(db).await, before, "what was cut off never happened");
    holdup.rollback().await.expect("rolled back");
    inbox::consume(consumer, clock, std::slice::from_ref(record)).await.expect("nothing is in its way any more");
    let after = digest(db).await;
    assert_ne!(after, before, "now it happened");
    inbox::consume(consumer, clock, std::slice::from_ref(record)).await.expect("a repeat");
    assert_eq!(digest(db).await, after, "once is enough");
}

/// Blocks writes to this table until the transaction is over.
async fn hold_up(db: &PgPool, table: &str) -> Transaction<'static, Postgres> {
    let mut tx = db.begin().await.expect("the database is there");
    sqlx::query(AssertSqlSafe(format!("lock table {table} in share mode"))).execute(&mut *tx).await.expect("locked");
    tx
}

/// Waits until the task is blocked. The process id of its session.
async fn held_up<T: Debug>(db: &PgPool, begun: &mut JoinHandle<T>) -> i32 {
    let sql = "select pid from pg_locks where not granted and locktype = 'relation'
                 and database = (select oid from pg_database where datname = current_database())";
    let session = async {
        loop {
            if let Some(pid) = sqlx::query_scalar(sql).fetch_optional(db).await.expect("locks can be read") {
                return pid;
            }
        }
    };
    tokio::select! {
        pid = session => pid,
        ended = begun => panic!("it was not held up: {ended:?}"),
    }
}

async fn end_session(db: &PgPool, pid: i32) {
    let ended: bool = sqlx::query_scalar("select pg_terminate_backend($1, 5000)")
        .bind(pid)
        .fetch_one(db)
        .await
        .expect("may be ended");
    assert!(ended, "the session is gone");
}
