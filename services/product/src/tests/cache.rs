//! The cache of single products, with a real Redis: that of all tests, or one of its own where it is stopped or frozen.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::redis::{self, Redis, Script};
use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::{Connection, PgConnection, PgPool};
use testkit::reason;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;
use crate::cache::{Cache, SYNC_EVERY, Shared, sync};
use crate::product::ProductId;

const LIFETIME: Duration = Duration::from_secs(60);
/// Longer than any test.
const PATIENT: Duration = Duration::from_secs(60);
/// As in operation.
const SHORT: Duration = Duration::from_millis(50);
const A_SECOND: Duration = Duration::from_secs(1);

/// A connection, once it is open.
async fn connect(url: &str, timeout: Duration) -> Redis {
    let redis = Redis::new(&redis::Config { url: url.into(), password_file: None, timeout }).expect("a good URL");
    tokio::spawn(redis.clone().run(CancellationToken::new()));
    redis.connected().await.expect("it connects");
    redis
}

/// Keys of its own in the Redis of all tests.
async fn in_common() -> (Redis, String) {
    let url = std::env::var("SOUK_TEST_REDIS").expect("SOUK_TEST_REDIS is the URL of a Redis, as in `make test`");
    (connect(&url, PATIENT).await, format!("souk:test:{}", Uuid::now_v7()))
}

/// A Redis that a test may stop, freeze and empty.
struct Server {
    process: Child,
    redis: Redis,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(&[], SHORT).await
    }

    async fn start_with(arguments: &[&str], timeout: Duration) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        // Another test may take the port before Redis does, which ends then.
        for _ in 0..10 {
            let port = free().to_string();
            let mut command = Command::new("redis-server");
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(arguments);
            let mut process = command.stdout(Stdio::null()).spawn().expect("redis-server is installed");
            let ended = async {
                while process.try_wait().expect("a child").is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let url = format!("redis://127.0.0.1:{port}");
            let redis = tokio::select! {
                redis = connect(&url, timeout) => redis,
                () = ended => continue,
            };
            return Self { process, redis };
        }
        panic!("Redis finds no free port");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Fixture {
    async fn get(&self, product_id: &str) -> Result<Product, Status> {
        let request = GetProductRequest { product_id: product_id.to_owned() };
        Ok(self.client.clone().get_product(request).await?.into_inner().product.expect("a product"))
    }

    async fn minor(&self, product_id: &str) -> i64 {
        self.get(product_id).await.expect("it is there").price.expect("a price").minor
    }

    async fn reprice(&self, product_id: &str, minor: i64) {
        let price = Some(Money::new("EUR", minor));
        let product = Product { product_id: product_id.to_owned(), price, ..Default::default() };
        self.update(product, &["price"]).await.expect("changed");
    }

    async fn sync(&self) {
        sync(self.service.clone()).await.expect("the database is there");
    }

    /// Copies changes as in operation, until the test ends.
    fn keep_in_sync(&self) {
        let service = self.service.clone();
        tokio::spawn(async move {
            loop {
                sync(service.clone()).await.expect("the database is there");
                tokio::time::sleep(SYNC_EVERY).await;
            }
        });
    }

    /// Reads until `stop`, from many tasks. Returns how often, and the slowest.
    async fn read_until(&self, product_ids: &[String], stop: &CancellationToken) -> (usize, Duration) {
        let mut readers = JoinSet::new();
        for number in 0..40 {
            let (mut client, stop) = (self.client.clone(), stop.clone());
            let product_id = product_ids[number % product_ids.len()].clone();
            readers.spawn(async move {
                let (mut count, mut slowest) = (0, Duration::ZERO);
                while !stop.is_cancelled() {
                    let begun = Instant::now();
                    let request = GetProductRequest { product_id: product_id.clone() };
                    client.get_product(request).await.expect("no read fails");
                    (count, slowest) = (count + 1, slowest.max(begun.elapsed()));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (count, slowest)
            });
        }
        let all = readers.join_all().await;
        all.into_iter().fold((0, Duration::ZERO), |sum, it| (sum.0 + it.0, sum.1.max(it.1)))
    }
}

/// Changes the price behind the service's back, and as long ago as `updated_at`.
async fn overwrite(db: &PgPool, minor: i64) {
    sqlx::query("update product set price_minor = $1").bind(minor).execute(db).await.expect("updated");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_product_is_read_from_redis_and_a_quote_is_not(db: PgPool) {
    let (redis, prefix) = in_common().await;
    let shared = Shared::new(redis, &prefix, LIFETIME).trusted_for(PATIENT);
    let fixture = Fixture::open_with(db.clone(), Some(shared)).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let product_id = product.product_id.clone();
    fixture.sync().await;
    assert_eq!(fixture.get(&product_id).await.expect("from the database"), product);
    overwrite(&db, 1).await;
    assert_eq!(fixture.get(&product_id).await.expect("from Redis"), product);
    let ask = QuoteItemsRequest { product_ids: vec![product_id.clone()] };
    let quotes = fixture.client_of("order").await.quote_items(ask).await.expect("for orders").into_inner().quotes;
    assert_eq!(quotes[0].unit_price, Some(Money::new("EUR", 1)), "from the database");
    fixture.reprice(&product_id, 2).await;
    assert_eq!(fixture.minor(&product_id).await, 2);
    fixture.archive(&product_id).await.expect("archived");
    assert_eq!(fixture.get(&product_id).await.expect("it is there").state(), ProductState::Archived);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn that_a_product_does_not_exist_is_kept_until_it_is_created(db: PgPool) {
    let (redis, prefix) = in_common().await;
    let shared = Shared::new(redis, &prefix, LIFETIME).trusted_for(PATIENT);
    let fixture = Fixture::open_with(db.clone(), Some(shared)).await;
    let created = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    fixture.sync().await;
    let (absent, unseen) = (Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(reason(&fixture.get(&absent.to_string()).await.expect_err("absent")), "PRODUCT_NOT_FOUND@souk.product");
    // Another id for the same product: so a product appears that nobody created.
    let renamed = sqlx::query("update product set product_id = $1, version = 2").bind(absent);
    renamed.execute(&db).await.expect("updated");
    let cached = fixture.get(&absent.to_string()).await.expect_err("Redis knows nothing of it");
    assert_eq!(reason(&cached), "PRODUCT_NOT_FOUND@souk.product");
    assert!(fixture.get(&unseen.to_string()).await.is_err());
    fixture.sync().await;
    assert_eq!(fixture.get(&absent.to_string()).await.expect("created").sku, created.sku);
}

/// Two replicas, of which each changes prices, and one of the previous release, which does not know of the cache.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_is_seen_by_every_replica_within_a_second(db: PgPool) {
    let (redis, prefix) = in_common().await;
    let shared = || Some(Shared::new(redis.clone(), &prefix, LIFETIME));
    let (one, other) = (Fixture::open_with(db.clone(), shared()).await, Fixture::open_with(db.clone(), shared()).await);
    let previous = Fixture::open(db).await;
    let product_id = one.create(mug("MUG-1", "Mug")).await.expect("created").product_id;
    one.keep_in_sync();
    other.keep_in_sync();
    for minor in 1..=10 {
        let (writer, reader) = if minor % 2 == 0 { (&one, &other) } else { (&other, &one) };
        reader.minor(&product_id).await;
        writer.reprice(&product_id, minor).await;
        assert_eq!((reader.minor(&product_id).await, writer.minor(&product_id).await), (minor, minor), "at once");
    }
    for minor in 11..=13 {
        one.minor(&product_id).await;
        previous.reprice(&product_id, minor).await;
        let changed = Instant::now();
        for reader in [&one, &other] {
            loop {
                let begun = changed.elapsed();
                if reader.minor(&product_id).await == minor {
                    break;
                }
                assert!(begun < A_SECOND, "a price is still old after {begun:?}");
            }
        }
    }
}

/// A read that began before a change ends after it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_read_before_a_change_is_not_stored_after_it(db: PgPool) {
    let server = Server::start_with(&[], PATIENT).await;
    let shared = Shared::new(server.redis.clone(), "souk:product", LIFETIME);
    let fixture = Fixture::open(db.clone()).await;
    let product_id = fixture.create(mug("MUG-1", "Mug")).await.expect("created").product_id;
    let id = ProductId::parse(&product_id).expect("an id");
    let read = || async { crate::product::Product::find_all(&db, &[id]).await.expect("read").pop().expect("there") };
    let old = read().await;
    fixture.reprice(&product_id, 2).await;
    let new = read().await;

    let (begun, epoch) = (Instant::now(), shared.invalidate(&[(id, new.version)]).await.expect("Redis is there"));
    shared.fill(epoch, begun, id, Some(&old)).await;
    assert_eq!(shared.get(id).await.expect("Redis is there"), None, "it is older than the change");
    shared.fill(epoch, begun, id, Some(&new)).await;
    let stored = shared.get(id).await.expect("Redis is there").expect("stored").expect("there");
    assert_eq!(stored.etag, "v2");
    shared.fill(epoch, begun, id, Some(&old)).await;
    assert_eq!(shared.get(id).await.expect("Redis is there"), Some(Some(stored)), "a later version stays");

    let flush = Script::new("redis.call('FLUSHALL') return {}");
    server.redis.run_script(&flush, vec![], vec![]).await.expect("Redis is there");
    shared.fill(epoch, begun, id, Some(&old)).await;
    assert_eq!(shared.get(id).await.expect("Redis is there"), None, "Redis does not know any more what changed");
    let next = shared.invalidate(&[]).await.expect("Redis is there");
    assert_ne!(next, epoch);
    shared.fill(epoch, begun, id, Some(&old)).await;
    assert_eq!(shared.get(id).await.expect("Redis is there"), None, "it was read in another epoch");
}

/// The price changes while Redis is frozen, so that the writer cannot tell it. When Redis continues, it has the old price.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_replica_believes_a_redis_that_missed_a_change(db: PgPool) {
    let server = Server::start().await;
    let shared = || Some(Shared::new(server.redis.clone(), "souk:product", LIFETIME));
    let (one, other) = (Fixture::open_with(db.clone(), shared()).await, Fixture::open_with(db, shared()).await);
    let product_id = one.create(mug("MUG-1", "Mug")).await.expect("created").product_id;
    one.keep_in_sync();
    other.keep_in_sync();
    for minor in 1..=3 {
        // Until Redis has the present price.
        let key = ProductId::parse(&product_id).expect("an id");
        while other.service.cache.shared_entry(key).await.is_none() {
            other.minor(&product_id).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.signal("-STOP");
        one.reprice(&product_id, minor).await;
        let changed = Instant::now();
        tokio::time::sleep(Duration::from_millis(300 * minor.unsigned_abs())).await;
        server.signal("-CONT");
        while changed.elapsed() < 3 * A_SECOND {
            let begun = changed.elapsed();
            let seen = (one.minor(&product_id).await, other.minor(&product_id).await);
            assert!(seen == (minor, minor) || begun < A_SECOND, "{seen:?} after {begun:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_redis_reads_are_slower_and_none_fails(db: PgPool) {
    let server = Server::start().await;
    let shared = Some(Shared::new(server.redis.clone(), "souk:product", LIFETIME));
    let fixture = Fixture::open_with(db.clone(), shared).await;
    let mut product_ids = Vec::new();
    for number in 0..20 {
        let product = fixture.create(mug(&format!("MUG-{number}"), "Mug")).await.expect("created");
        product_ids.push(product.product_id);
    }
    fixture.keep_in_sync();
    let stop = CancellationToken::new();
    let faults = async {
        let mut busiest = 0;
        let mut session = PgConnection::connect_with(&db.connect_options()).await.expect("connected");
        // The reads, not what copies changes or what Postgres does by itself.
        let active = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'
            and backend_type = 'client backend' and pid <> pg_backend_pid() and query not like '%updated_at >= $1%'";
        let mut watch = async |time: Duration| {
            let begun = Instant::now();
            while begun.elapsed() < time {
                let count = sqlx::query_scalar::<_, i64>(active).fetch_one(&mut session).await.expect("counted");
                busiest = busiest.max(count);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        watch(A_SECOND).await;
        let flush = Script::new("redis.call('FLUSHALL') return {}");
        for _ in 0..10 {
            let _ = server.redis.run_script(&flush, vec![], vec![]).await;
            watch(Duration::from_millis(100)).await;
        }
        server.signal("-STOP");
        watch(3 * A_SECOND).await;
        server.signal("-CONT");
        watch(A_SECOND).await;
        server.signal("-KILL");
        watch(2 * A_SECOND).await;
        stop.cancel();
        busiest
    };
    let (busiest, (count, slowest)) = tokio::join!(faults, fixture.read_until(&product_ids, &stop));
    println!("{count} reads, the slowest {slowest:?}, at most {busiest} queries at once");
    assert!(busiest <= 3, "{busiest} queries at once: half of the sessions");
    assert!(count >= product_ids.len(), "{count} reads, the slowest {slowest:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn readers_of_one_product_make_one_query(db: PgPool) {
    let product = Fixture::open(db.clone()).await.create(mug("MUG-1", "Mug")).await.expect("created");
    let product_id = ProductId::parse(&product.product_id).expect("an id");
    let cache = Arc::new(Cache::new(None, 3).joined_within(PATIENT));
    let mut lock = db.begin().await.expect("begun");
    sqlx::query("lock table product in access exclusive mode").execute(&mut *lock).await.expect("locked");
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let (cache, db) = (cache.clone(), db.clone());
        readers.spawn(async move { cache.get(&db, product_id).await });
    }
    let waiting = "select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())";
    let count = || async { sqlx::query_scalar::<_, i64>(waiting).fetch_one(&db).await.expect("counted") };
    while count().await == 0 || cache.waiting() < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count().await, 1);
    lock.rollback().await.expect("unlocked");
    for read in readers.join_all().await {
        assert_eq!(read.expect("read").as_ref(), Some(&product));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_redis_that_is_nearly_full_gets_no_more_products_but_changes(db: PgPool) {
    let memory = ["--maxmemory", "8mb", "--maxmemory-policy", "volatile-ttl"];
    let server = Server::start_with(&memory, PATIENT).await;
    let shared = Shared::new(server.redis.clone(), "souk:product", LIFETIME).trusted_for(PATIENT);
    let fixture = Fixture::open_with(db, Some(shared)).await;
    let mut product_ids = Vec::new();
    for number in 0..2 {
        let product = fixture.create(mug(&format!("MUG-{number}"), "Mug")).await.expect("created");
        product_ids.push(product.product_id);
    }
    let id = |at: usize| ProductId::parse(&product_ids[at]).expect("an id");
    fixture.sync().await;
    fixture.minor(&product_ids[0]).await;
    assert!(fixture.service.cache.shared_entry(id(0)).await.is_some(), "there is room");

    let limits = Script::new("redis.call('SETRANGE', 'limits', 5800000, 'x') return {}");
    server.redis.run_script(&limits, vec![], vec![]).await.expect("Redis is there");
    fixture.sync().await;
    fixture.minor(&product_ids[1]).await;
    assert!(fixture.service.cache.shared_entry(id(1)).await.is_none(), "it is too full");
    fixture.reprice(&product_ids[0], 3).await;
    assert!(fixture.service.cache.shared_entry(id(0)).await.is_none(), "the change is marked");
    assert_eq!(fixture.minor(&product_ids[0]).await, 3);

    let end = Script::new("redis.call('DEL', 'limits') return {}");
    server.redis.run_script(&end, vec![], vec![]).await.expect("Redis is there");
    fixture.sync().await;
    fixture.minor(&product_ids[1]).await;
    assert!(fixture.service.cache.shared_entry(id(1)).await.is_some(), "there is room again");
}
