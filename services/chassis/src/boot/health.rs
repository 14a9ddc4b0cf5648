//! Health checks. A role is SERVING while its database is reachable and writable: a replica that cannot reach it, or reaches a
//! standby, would fail calls that another replica can serve.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::boot::clock::Clock;
use crate::boot::db::{self, Schema};
use crate::boot::metrics::{self, ByRole};

const PROBE_EVERY: Duration = Duration::from_secs(1);
/// While the database is not writable.
const PROBE_AGAIN: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

static REACHED: LazyLock<Family<ByRole, Gauge>> = LazyLock::new(|| {
    metrics::register("database_reached", "Whether a role's database is reachable and writable", Family::default())
});

/// Sets the status that health checks return.
pub(crate) async fn set_serving(health: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    for service in services.iter().chain(&[""]) {
        health.set_service_status(*service, status).await;
    }
}

/// Probes the database for ever and updates the status. It starts as SERVING, as a role may start before its database.
pub(crate) async fn follow(
    role: &'static str,
    services: &[&'static str],
    health: &HealthReporter,
    db: &PgPool,
    clock: &Clock,
) -> Infallible {
    let options = db.connect_options();
    let (mut session, mut serves) = (None, true);
    loop {
        let mut probed = probe(&mut session, &options, clock).await;
        if probed.is_err() {
            // The session may have ended for another reason; a new one is conclusive.
            probed = probe(&mut session, &options, clock).await;
        }
        REACHED.get_or_create(&ByRole::new(role)).set(i64::from(probed.is_ok()));
        match &probed {
            Ok(()) if !serves => {
                tracing::info!(role, "the database is writable again");
                db::distrust_open_sessions();
                set_serving(health, services, ServingStatus::Serving).await;
            }
            Err(error) if serves => {
                tracing::error!(role, error, "the database is not writable; the role is NOT_SERVING until it is");
                set_serving(health, services, ServingStatus::NotServing).await;
            }
            Ok(()) | Err(_) => {}
        }
        serves = probed.is_ok();
        tokio::time::sleep(if serves { PROBE_EVERY } else { PROBE_AGAIN }).await;
    }
}

/// Waits until `souk migrate` has applied all migrations that this release knows, or a later release has applied more.
pub(crate) async fn until_migrated(schema: &Schema, db: &PgPool) {
    let newest = schema.migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    let mut is_logged = false;
    while let Err(why) = is_migrated(db, newest).await {
        if !is_logged {
            tracing::warn!(role = schema.service, why, "the role is not ready until `souk migrate` has run");
            is_logged = true;
        }
        tokio::time::sleep(PROBE_AGAIN).await;
    }
}

async fn is_migrated(db: &PgPool, newest: i64) -> Result<(), String> {
    let applied = "select coalesce(max(version), 0) from _sqlx_migrations where success";
    let applied: i64 = sqlx::query_scalar(applied).fetch_one(db).await.map_err(|error| error.to_string())?;
    if applied < newest {
        Err(format!("migration {newest} is not applied, only those up to {applied}"))
    } else {
        Ok(())
    }
}

/// Uses a separate connection, so that a busy pool does not make the role NOT_SERVING. A connection that does not respond in
/// time is dropped.
async fn probe(session: &mut Option<PgConnection>, options: &PgConnectOptions, clock: &Clock) -> Result<(), String> {
    let probe = async {
        let mut open = match session.take() {
            Some(open) => open,
            None => PgConnection::connect_with(options).await?,
        };
        let begun = Instant::now();
        let row = sqlx::query!(
            r#"select current_setting('transaction_read_only')::bool as "read_only!", clock_timestamp() as "now!""#,
        );
        let row = row.fetch_one(&mut open).await?;
        // The server read its clock at some time in between.
        clock.set(begun + begun.elapsed() / 2, row.now);
        Ok::<_, sqlx::Error>((open, row.read_only))
    };
    let outcome = tokio::time::timeout(PROBE_TIMEOUT, probe).await.map_err(|_| "it does not respond".to_owned())?;
    let (open, read_only) = outcome.map_err(|error| error.to_string())?;
    if read_only {
        db::distrust_open_sessions();
        return Err("it is read-only".to_owned());
    }
    *session = Some(open);
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health;
    use tonic_health::server::HealthService;

    use super::*;
    use crate::rpc::error::Unexpected;

    async fn until(health: &HealthReporter, status: ServingStatus) {
        let (begun, service) = (Instant::now(), HealthService::from_health_reporter(health.clone()));
        loop {
            let request = Request::new(HealthCheckRequest { service: "souk.test".into() });
            let response = service.check(request).await.expect("it is known").into_inner();
            if response.status == status as i32 {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it never was {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[sqlx::test(migrations = false)]
    async fn a_role_serves_while_its_database_answers(db: PgPool) {
        let (options, health) = (db.connect_options(), HealthReporter::new());
        let name = options.get_database().expect("each test has one").to_owned();
        let mut elsewhere =
            PgConnection::connect_with(&options.as_ref().clone().database("postgres")).await.expect("up");
        let mut tell = async |sql: String| elsewhere.execute(AssertSqlSafe(sql)).await.map(drop).expect("it is done");
        let (services, clock) = (["souk.test"], Clock::System);
        set_serving(&health, &services, ServingStatus::Serving).await;
        let following = follow("test", &services, &health, &db, &clock);
        let end_sessions = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
        let story = async {
            tell(format!(r#"alter database "{name}" allow_connections false"#)).await;
            // A session that is being opened at this moment is not listed yet.
            let end_all = async {
                loop {
                    tell(end_sessions.clone()).await;
                    tokio::time::sleep(PROBE_AGAIN).await;
                }
            };
            tokio::select! {
                never = end_all => never,
                () = until(&health, ServingStatus::NotServing) => {}
            }
            tell(format!(r#"alter database "{name}" allow_connections true"#)).await;
            until(&health, ServingStatus::Serving).await;
            // The end of sessions alone does not change the status.
            tell(end_sessions).await;
        };
        tokio::select! {
            never = following => match never {},
            () = story => {}
        }
    }

    #[sqlx::test(migrations = false)]
    async fn a_role_is_not_ready_before_its_migrations(db: PgPool) {
        assert!(is_migrated(&db, 2).await.is_err(), "nothing is there");
        db.execute("create table _sqlx_migrations (version bigint, success boolean)").await.expect("created");
        for (version, is_there) in [(1, false), (2, true), (3, true)] {
            let applied = format!("insert into _sqlx_migrations values ({version}, true)");
            db.execute(AssertSqlSafe(applied)).await.expect("inserted");
            assert_eq!(is_migrated(&db, 2).await.is_ok(), is_there, "{version}");
        }
    }

    /// Replicas use the database's clock as soon as it was read.
    #[sqlx::test(migrations = false)]
    async fn two_replicas_have_one_clock(db: PgPool) {
        let (early, late) = (Clock::System.of_database(), Clock::System.of_database());
        let (now, hour) = (time::OffsetDateTime::now_utc(), Duration::from_secs(3_600));
        early.set(Instant::now(), now - hour);
        late.set(Instant::now(), now + hour);
        assert!(late.now() - early.now() > hour, "they differ by what was set");
        let unset = Clock::System.of_database();
        for clock in [&early, &late, &unset] {
            let health = HealthReporter::new();
            let agrees = async {
                clock.known().await;
                let begun = Instant::now();
                loop {
                    let query = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#);
                    let theirs = query.fetch_one(&db).await.expect("the database responds");
                    if (clock.now() - theirs).abs() < hour / 60 {
                        return;
                    }
                    assert!(begun.elapsed() < Duration::from_secs(20), "the clock was never read");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                never = follow("test", &[], &health, &db, clock) => match never {},
                () = agrees => {}
            }
        }
    }

    /// As in a failover: sessions stay open to a server that has become a standby.
    #[sqlx::test(migrations = false)]
    async fn a_role_whose_database_is_read_only_does_not_serve_and_its_pool_recovers(db: PgPool) {
        let (options, health) = (db.connect_options(), HealthReporter::new());
        let name = options.get_database().expect("each test has one").to_owned();
        let mut elsewhere =
            PgConnection::connect_with(&options.as_ref().clone().database("postgres")).await.expect("up");
        let mut tell = async |sql: String| elsewhere.execute(AssertSqlSafe(sql)).await.map(drop).expect("it is done");
        let url = options.to_url_lossy().to_string().into();
        let database = db::Database { database_url: url, database_password_file: None };
        let pool = db::pool(&database, 1).expect("a URL");
        pool.execute("create table noted (at timestamptz not null)").await.expect("it may be written");
        let write = async || pool.execute("insert into noted values (now())").await.map(drop).map_err(Unexpected::from);

        let (services, clock) = (["souk.test"], Clock::System);
        set_serving(&health, &services, ServingStatus::Serving).await;
        let following = follow("test", &services, &health, &db, &clock);
        let story = async {
            tell(format!(r#"alter database "{name}" set default_transaction_read_only = on"#)).await;
            tell(format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")).await;
            until(&health, ServingStatus::NotServing).await;
            let refused = write().await.expect_err("it is read-only");
            assert!(refused.will_pass(), "{refused}");
            tell(format!(r#"alter database "{name}" reset default_transaction_read_only"#)).await;
            until(&health, ServingStatus::Serving).await;
            // The session of the failed write is still open, and would be read-only for ever.
            write().await.expect("a new session takes its place");
        };
        tokio::select! {
            never = following => match never {},
            () = story => {}
        }
    }
}
