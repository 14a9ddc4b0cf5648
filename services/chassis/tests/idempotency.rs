//! Stored responses, and how long they are kept.

use std::time::Duration;

use chassis::rpc::Identity;
use chassis::rpc::idempotency::{self, Begun, KEPT, Key};
use chassis::{Caller, Error};
use prost_types::Timestamp;
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

fn customer(id: u128) -> Caller {
    let identity = Identity::Customer { user_id: Uuid::from_u128(id), session_id: Uuid::nil() };
    Caller::new(identity, Instant::now() + Duration::from_secs(5))
}

/// Any message serves as a request, and as a response.
fn seconds(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

async fn call(db: &PgPool, caller: &Caller, request: i64, response: i64) -> Result<i64, Error> {
    call_with_key(Key::parse("k1")?, db, caller, request, response).await
}

async fn call_with_key(key: Key, db: &PgPool, caller: &Caller, request: i64, response: i64) -> Result<i64, Error> {
    match idempotency::begin::<_, Timestamp>(db, caller, &key, &seconds(request)).await? {
        Begun::Fresh(tx) => {
            tx.commit(&seconds(response)).await?;
            Ok(response)
        }
        Begun::Replay(stored) => Ok(stored.seconds),
    }
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_response_is_kept_for_seven_days_and_then_deleted(db: PgPool) {
    let ada = customer(1);
    assert_eq!(call(&db, &ada, 1, 10).await.expect("fresh"), 10);
    let (kept, minute) = (KEPT.as_seconds_f64(), 60.0);
    grow_older(&db, kept - minute).await;
    assert_eq!(idempotency::delete_old(&db).await.expect("looked"), 0);
    assert_eq!(call(&db, &ada, 1, 11).await.expect("kept"), 10);
    grow_older(&db, 2.0 * minute).await;
    assert_eq!(idempotency::delete_old(&db).await.expect("looked"), 1);
    assert_eq!(call(&db, &ada, 1, 12).await.expect("fresh again"), 12);
}

/// Replicas delete at the same time: none waits for a row that another has locked.
#[sqlx::test(migrations = "../../migrations/order")]
async fn replicas_delete_without_waiting_for_each_other(db: PgPool) {
    for (id, response) in [(1, 10), (2, 20)] {
        call(&db, &customer(id), 1, response).await.expect("fresh");
    }
    grow_older(&db, KEPT.as_seconds_f64() + 60.0).await;
    let mut other = db.begin().await.expect("another replica");
    let first = Uuid::from_u128(1).to_string();
    sqlx::query("delete from idempotency where caller = $1")
        .bind(first)
        .execute(&mut *other)
        .await
        .expect("the row is locked");
    assert_eq!(idempotency::delete_old(&db).await.expect("it does not wait"), 1);
    other.rollback().await.expect("rolled back");
    assert_eq!(idempotency::delete_old(&db).await.expect("looked"), 1);
}

async fn grow_older(db: &PgPool, seconds: f64) {
    let older = sqlx::query("update idempotency set created_at = created_at - make_interval(secs => $1)");
    older.bind(seconds).execute(db).await.expect("older");
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_key_is_its_callers_own(db: PgPool) {
    let (ada, bob) = (customer(1), customer(2));
    assert_eq!(call(&db, &ada, 1, 10).await.expect("fresh"), 10);
    assert_eq!(call(&db, &bob, 2, 20).await.expect("fresh"), 20, "another caller's key is another key");
    assert!(matches!(call(&db, &ada, 2, 30).await, Err(Error::KeyReused)));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_key_without_a_caller_belongs_to_its_subject(db: PgPool) {
    let anonymous = Caller::new(Identity::Anonymous, Instant::now() + Duration::from_secs(5));
    let about = |subject| Key::parse("k1").map(|key| key.about(subject)).expect("a key");
    assert_eq!(call_with_key(about("ada"), &db, &anonymous, 1, 10).await.expect("fresh"), 10);
    assert_eq!(
        call_with_key(about("bob"), &db, &anonymous, 2, 20).await.expect("fresh"),
        20,
        "another caller's key is another key"
    );
    assert_eq!(call_with_key(about("ada"), &db, &anonymous, 1, 30).await.expect("a repeat"), 10);
    assert!(matches!(call_with_key(about("ada"), &db, &anonymous, 2, 40).await, Err(Error::KeyReused)));
    assert!(
        matches!(call(&db, &anonymous, 1, 50).await, Err(Error::Unexpected(_))),
        "nothing is shared by all visitors"
    );
}
