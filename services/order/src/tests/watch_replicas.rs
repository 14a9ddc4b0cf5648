//! Following orders at two replicas while they change at both.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::event::relay;
use contracts::souk::order::v1::watch_order_response::Update;
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{authorized, captured, stock_reserved};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Fixture;
use super::watch::{after, next};
use crate::service::role;
use crate::watch::listen;

const ORDERS: u128 = 100;
const WATCHERS: usize = 10;
/// More than any machine needs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Placed, reserved, confirmed, paid, three refunds, fulfilled.
const VERSIONS: i64 = 8;

/// A replica with what its process runs beside its server.
struct Replica {
    fixture: Fixture,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Replica {
    async fn start(db: &PgPool) -> Self {
        let (fixture, stop, mut tasks) = (Fixture::open(db.clone()).await, CancellationToken::new(), JoinSet::new());
        let role = role(&fixture.service, &fixture.kit.context);
        for job in role.jobs.into_iter().filter(|job| ["order.watch", "order.notify_replicas"].contains(&job.name)) {
            let stop = stop.clone();
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    job.drain().await.expect("the database is there");
                    tokio::select! {
                        () = job.wake.woken() => {}
                        () = tokio::time::sleep(job.every) => {}
                        () = stop.cancelled() => {}
                    }
                }
            });
        }
        let outbox = role.outbox.expect("it publishes");
        tasks.spawn(relay::publish(outbox, "order", Arc::new(|_| Box::pin(async { Ok(()) })), stop.clone()));
        tasks.spawn(listen(fixture.service.clone(), stop.clone()));
        Self { fixture, stop, tasks }
    }

    /// As a process that is told to stop: streams end, and then everything else.
    fn stop(&self) {
        self.fixture.kit.context.streams.drain();
        self.stop.cancel();
    }
}

type Replicas = Arc<Mutex<[Arc<Replica>; 2]>>;

fn replica(replicas: &Replicas, at: usize) -> Arc<Replica> {
    replicas.lock().expect("no panics")[at % 2].clone()
}

/// Follows an order until it ends, from whichever replica responds, and returns the versions that it saw and how often it resumed.
async fn follow(
    replicas: Replicas,
    mut at: usize,
    (user_id, order): (Uuid, Uuid),
    begun: watch::Sender<usize>,
) -> (Vec<i64>, usize) {
    let (mut seen, mut streams) = (vec![], 0);
    loop {
        let replica = replica(&replicas, at);
        at += 1;
        let mut request = replica.fixture.kit.customer(user_id, after(order, seen.last().copied().unwrap_or(0)));
        // Hundreds begin at the same time.
        request.set_timeout(PATIENCE);
        let mut stream = replica.fixture.client.clone().watch_order(request).await.expect("theirs").into_inner();
        streams += 1;
        while let Some(message) = stream.message().await.expect("no error") {
            match message.update.expect("it says something") {
                Update::Order(_) | Update::Change(_) => {
                    seen.push(message.version);
                    begun.send_modify(|count| *count += usize::from(seen.len() == 1));
                }
                Update::KeepAlive(_) => {}
                Update::End(end) if end.reason() == WatchEndReason::OrderEnded => return (seen, streams - 1),
                Update::End(end) => assert_eq!(end.reason(), WatchEndReason::Resume),
            }
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_watcher_sees_every_version_once_and_in_order_though_a_replica_restarts(db: PgPool) {
    let first = [Arc::new(Replica::start(&db).await), Arc::new(Replica::start(&db).await)];
    let replicas: Replicas = Arc::new(Mutex::new(first));
    let mut orders = vec![];
    for user in 1..=ORDERS {
        let fixture = &replica(&replicas, 0).fixture;
        let (user_id, request) = (Uuid::from_u128(user), fixture.wanted("k1"));
        let placed = fixture.client.clone().create_order(fixture.kit.customer(user_id, request)).await.expect("placed");
        let order_id = placed.into_inner().order.expect("an order").order_id;
        orders.push((user_id, Uuid::parse_str(&order_id).expect("a UUID")));
    }
    let mut watchers = JoinSet::new();
    let begun = watch::Sender::new(0);
    for order in &orders {
        for at in 0..WATCHERS {
            watchers.spawn(follow(replicas.clone(), at, *order, begun.clone()));
        }
    }
    // Their first version is the state when it is read, so no order changes before.
    let mut begun = begun.subscribe();
    let everybody = begun.wait_for(|count| *count == orders.len() * WATCHERS);
    tokio::time::timeout(PATIENCE, everybody).await.expect("all watch").expect("there is a sender");

    for step in 0..VERSIONS - 2 {
        for (at, (_, order)) in orders.iter().enumerate() {
            // Each change at another replica than the one before.
            let replica = replica(&replicas, at + usize::try_from(step).expect("small"));
            let order = *order;
            match step {
                0 => replica.fixture.kit.deliver(stock_reserved(order)).await,
                1 => replica.fixture.kit.deliver(authorized(order)).await,
                2 => replica.fixture.kit.deliver(captured(order, 2_500)).await,
                _ => replica.fixture.refund_one(order).await,
            }
            if (step, at) == (1, orders.len() / 2) {
                let restarted = Arc::new(Replica::start(&db).await);
                let stopped = std::mem::replace(&mut replicas.lock().expect("no panics")[1], restarted);
                stopped.stop();
            }
        }
        if step == 3 {
            end_listening(&db).await;
        }
    }
    for (at, (_, order)) in orders.iter().enumerate() {
        replica(&replicas, at).fixture.fulfill(*order, &format!("f{at}")).await.expect("paid");
    }

    let all = async { std::mem::take(&mut watchers).join_all().await };
    let all = tokio::time::timeout(PATIENCE, all).await.expect("all orders end");
    assert_eq!(all.len(), orders.len() * WATCHERS);
    for (seen, _) in &all {
        assert_eq!(*seen, (1..=VERSIONS).collect::<Vec<_>>());
    }
    let resumed = all.iter().filter(|(_, resumed)| *resumed > 0).count();
    assert_eq!(resumed, all.len() / 2, "those of the replica that stopped");
}

/// Ends the sessions in which replicas listen.
async fn end_listening(db: &PgPool) {
    let ended: Vec<bool> = sqlx::query_scalar(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and query like '%pg_advisory_lock_shared%'",
    )
    .fetch_all(db)
    .await
    .expect("may be ended");
    assert!(!ended.is_empty(), "somebody listens");
}

/// Whichever of them leads: a change is seen long before versions are compared, also by the replica that did not make it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_is_notified_to_every_replica(db: PgPool) {
    let replicas = [Replica::start(&db).await, Replica::start(&db).await];
    let order = replicas[0].fixture.place().await;
    let mut watches = [
        replicas[0].fixture.watch(order, 0).await.expect("theirs"),
        replicas[1].fixture.watch(order, 0).await.expect("theirs"),
    ];
    for watch in &mut watches {
        assert_eq!(next(watch).await, "1 PENDING");
    }
    let listening = async {
        let held = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted
                      and database = (select oid from pg_database where datname = current_database())";
        while sqlx::query_scalar::<_, i64>(held).fetch_one(&db).await.expect("locks") < 2 {}
    };
    tokio::time::timeout(Duration::from_secs(10), listening).await.expect("both listen");
    // Only notifications are left.
    for replica in &replicas {
        replica.fixture.service.watched.compare_no_more();
    }
    replicas[1].fixture.kit.deliver(stock_reserved(order)).await;
    replicas[1].fixture.service.published.wake();
    for watch in &mut watches {
        let told = tokio::time::timeout(Duration::from_secs(10), next(watch)).await.expect("it was notified");
        assert_eq!(told, "2 OrderReserved RESERVED");
    }
    for replica in replicas {
        replica.stop();
        replica.tasks.join_all().await;
    }
}
