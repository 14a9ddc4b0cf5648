//! What is over is deleted, by whichever replica comes first.

use std::time::Duration;

use chassis::Next;
use sqlx::PgPool;

use super::{DAY, Fixture, LIMITS};
use crate::prune::prune;
use crate::revocation::LISTED;
use crate::session::REPEATABLE;

async fn prune_all(fixture: &Fixture) {
    while prune(fixture.service.clone()).await.expect("pruned") == Next::AtOnce {}
}

async fn rows(fixture: &Fixture) -> (i64, i64, i64) {
    let query =
        "select (select count(*) from session), (select count(*) from session_used), (select count(*) from revocation)";
    sqlx::query_as(query).fetch_one(&fixture.service.db).await.expect("counted")
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_over_is_deleted_and_nothing_else(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.signed_in().await;
    fixture.sign_in().await;
    fixture.sign_in().await;
    // The first makes room for it.
    let token = fixture.sign_in().await.refresh_token;
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await, (3, 0, 1));
    fixture.wait(LISTED - Duration::from_secs(1));
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await, (3, 0, 1));
    fixture.wait(Duration::from_secs(1));
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await, (3, 0, 0));

    fixture.refresh(&token).await.expect("refreshed");
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await, (3, 1, 0), "it may be answered again");
    fixture.wait(REPEATABLE);
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await, (3, 0, 0));

    fixture.wait(LIMITS.idle - DAY);
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await.0, 3);
    fixture.wait(DAY);
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await, (0, 0, 0));
}

/// It does not wait for rows that another replica has locked.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn replicas_prune_at_the_same_time(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.signed_in().await;
    fixture.sign_in().await;
    fixture.wait(LIMITS.idle);
    let mut other = fixture.service.db.begin().await.expect("another replica");
    let first = "delete from session where session_id = (select session_id from session order by session_id limit 1)";
    sqlx::query(first).execute(&mut *other).await.expect("locked");
    assert_eq!(prune(fixture.service.clone()).await.expect("it does not wait"), Next::AtOnce);
    other.rollback().await.expect("rolled back");
    assert_eq!(rows(&fixture).await.0, 1);
    prune_all(&fixture).await;
    assert_eq!(rows(&fixture).await.0, 0);
}
