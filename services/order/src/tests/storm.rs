//! Clients that leave at every moment, with a database that is two milliseconds away: what they began runs to its end, and
//! no session stays in an open transaction.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::Fixture;

/// A link to Postgres that takes a millisecond each way.
async fn far_away(to: &PgConnectOptions) -> PgConnectOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let target = to.get_port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", target)).await.expect("Postgres is there");
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(carry(near_read, far_write));
            tokio::spawn(carry(far_read, near_write));
        }
    });
    to.clone().port(port)
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = [0; 8_192];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn whenever_a_client_leaves_nothing_is_left_half_done(_: PgPoolOptions, near: PgConnectOptions) {
    let pool: PgPool = PgPoolOptions::new().max_connections(1).connect_lazy_with(far_away(&near).await);
    let fixture = Fixture::open(pool.clone()).await;
    fixture.place().await;
    let mut watch = PgConnection::connect_with(&near).await.expect("Postgres is there");
    for moment in 0..60_u64 {
        let request = fixture.wanted(&format!("s{moment}"));
        // Whether it got a response in time does not matter here.
        let _ = tokio::time::timeout(Duration::from_micros(500 * moment), fixture.create(request)).await;
        fixture.kit.context.tasks.close();
        fixture.kit.context.tasks.wait().await;
        fixture.kit.context.tasks.reopen();
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'",
        )
        .fetch_one(&mut watch)
        .await
        .expect("a count");
        assert_eq!(open, 0, "a client that left after {} us", 500 * moment);
    }
    let whole: i64 = sqlx::query_scalar(
        "select count(*) from \"order\" where exists (select from outbox where key = order_id) \
         and exists (select from order_line where order_line.order_id = \"order\".order_id)",
    )
    .fetch_one(&mut watch)
    .await
    .expect("a count");
    let all: i64 = sqlx::query_scalar("select count(*) from \"order\"").fetch_one(&mut watch).await.expect("a count");
    assert!(all > 1, "some were placed");
    assert_eq!(whole, all);
}
