//! Faults: Postgres is killed, ends sessions, is locked, slow or unreachable.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Context, Result};
use roster::{ANALYTICS, ORDER};
use sqlx::Connection;
use uuid::Uuid;

use super::backlog::Progress;
use super::cluster::{Cluster, all_replicas, replicas};
use super::fault::{Expect, Fault, HALF_A_MINUTE, Injected, SERVES_WITHIN_FIVE, Site, TWELVE_SECONDS};
use super::proxy::Mode;
use stack::supervisor::Command::Kill;

const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("postgres-killed", "kill -9 of Postgres, with recovery", SERVES_WITHIN_FIVE, |site| {
        Box::pin(async move { site.cluster.send("postgres", Kill).await })
    })
    .short(),
    Fault::new(
        "backends-terminated",
        "every session of every database is ended, five times",
        SERVES_WITHIN_FIVE,
        |site| {
            Box::pin(async move {
                for _ in 0..5 {
                    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname like 'souk_%'";
                    site.cluster.execute("postgres", end).await?;
                    site.lasts(2).await;
                }
                Ok(())
            })
        },
    ),
    Fault::new(
        "tables-locked",
        "the tables of orders and stock are locked for 8 s, until pools are empty",
        SERVES_WITHIN_FIVE,
        |site| {
            Box::pin(async move {
                let orders = lock(&site, "souk_order", r#"lock table "order" in exclusive mode"#, 8);
                let stock = lock(&site, "souk_inventory", "lock table stock in exclusive mode", 8);
                tokio::try_join!(orders, stock).map(drop)
            })
        },
    ),
    Fault::new("long-transaction", "a transaction with an event stays open for 20 s", Expect::NoFailure, |site| {
        Box::pin(async move {
            // Its transaction id and outbox id are below those of all transactions that commit meanwhile.
            let open = "insert into outbox (event_id, topic, key, version, type, payload, actor, created_at)
                            values (gen_random_uuid(), 'souk.order.v1', gen_random_uuid(), 1, 'none', '', 'test', now())";
            lock(&site, "souk_order", open, 20).await
        })
    }),
    Fault::new(
        "database-slow",
        "20 ms more for each chunk from and to every database, for 10 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                set_all(site.cluster, Mode::Slow(Duration::from_millis(20)));
                site.lasts(10).await;
                set_all(site.cluster, Mode::Pass);
                Ok(())
            })
        },
    ),
    Fault::new(
        "database-cut",
        "one replica of the order service cannot reach its database for 15 s",
        // A health check fails, and the edge uses the other replica.
        Expect::Stretch(Duration::from_secs(5)),
        |site| misbehave(site, Mode::Cut),
    ),
    Fault::new(
        "database-half-open",
        "one replica's connections to its database stay open, but nothing arrives, for 15 s",
        TWELVE_SECONDS,
        |site| misbehave(site, Mode::HalfOpen),
    ),
    Fault::new(
        "analytics-database-cut",
        "no replica of analytics can reach its database for 15 s; then the figures catch up",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let set = |mode| {
                    let databases = replicas(ANALYTICS).iter().filter_map(|name| site.cluster.database(name).ok());
                    databases.for_each(|proxy| proxy.set(mode));
                };
                set(Mode::Cut);
                site.lasts(15).await;
                set(Mode::Pass);
                figures_catch_up(&site).await
            })
        },
    ),
];

/// Waits until the orders that were paid by the end of the fault are in the figures. Whether these are right is checked after all
/// faults.
async fn figures_catch_up(site: &Site<'_>) -> Result<()> {
    let mut orders = site.cluster.administrator("souk_order").await?;
    let paid = r#"select order_id from "order" where captured and created_at > now() - interval '2 minutes'"#;
    let paid: Vec<Uuid> = sqlx::query_scalar(paid).fetch_all(&mut orders).await?;
    orders.close().await?;
    let mut figures = site.cluster.administrator("souk_analytics").await?;
    let mut progress = Progress::new(HALF_A_MINUTE + site.machine.slack());
    loop {
        let counted = "select count(*) from counted_order join projection using (projection_id)
                       where state = 'LIVE' and order_id = any($1) and stages & 8 <> 0";
        let counted: i64 = sqlx::query_scalar(counted).bind(&paid).fetch_one(&mut figures).await?;
        if usize::try_from(counted) == Ok(paid.len()) {
            return Ok(figures.close().await?);
        }
        let late = || format!("{counted} of {} paid orders are in the figures", paid.len());
        progress.check(counted, site.control).with_context(late)?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn set_all(cluster: &Cluster, mode: Mode) {
    all_replicas().filter_map(|replica| cluster.database(replica).ok()).for_each(|proxy| proxy.set(mode));
}

fn misbehave(mut site: Site<'_>, mode: Mode) -> Injected<'_> {
    Box::pin(async move {
        let replica = site.one_of(ORDER);
        site.misbehave(from_ref(site.cluster.database(replica)?), mode, 15).await;
        Ok(())
    })
}

/// Executes a statement and holds its locks for a time, then rolls back.
async fn lock(site: &Site<'_>, database: &str, statement: &str, seconds: u64) -> Result<()> {
    let seconds = site.pace.of(seconds).as_secs_f64();
    site.cluster.execute(database, &format!("begin; {statement}; select pg_sleep({seconds}); rollback")).await
}
