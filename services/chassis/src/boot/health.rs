//! What health checks are told. A role serves while its database answers and takes writes: a replica that cannot reach it, or
//! reaches a standby, would fail calls that another one may answer.

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
use crate::boot::db;
use crate::boot::metrics::{self, Of};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While it is away.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

static REACHED: LazyLock<Family<Of, Gauge>> = LazyLock::new(|| {
    metrics::register("database_reached", "Whether a role reaches its database and may write there", Family::default())
});

/// Tells health checks whether a role serves.
pub(crate) async fn set_serving(health: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    for service in services.iter().chain(&[""]) {
        health.set_service_status(*service, status).await;
    }
}

/// Keeps what is told true, beginning with a role that serves: one may start before its database.
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
        let mut looked = look(&mut session, &options, clock).await;
        if looked.is_err() {
            // A session may end for reasons of its own; a fresh one tells.
            looked = look(&mut session, &options, clock).await;
        }
        REACHED.get_or_create(&Of::new(role)).set(i64::from(looked.is_ok()));
        match &looked {
            Ok(()) if !serves => {
                tracing::info!(role, "the database takes writes again");
                db::distrust_open_sessions();
                set_serving(health, services, ServingStatus::Serving).await;
            }
            Err(error) if serves => {
                tracing::error!(role, error, "the database takes no writes; this role does not serve until it does");
                set_serving(health, services, ServingStatus::NotServing).await;
            }
            Ok(()) | Err(_) => {}
        }
        serves = looked.is_ok();
        tokio::time::sleep(if serves { LOOK_EVERY } else { LOOK_AGAIN }).await;
    }
}

/// On a connection of its own: a pool that is merely busy is no reason to send everybody away. One that does not answer in
/// time is dropped in the middle of it, which nobody else minds.
async fn look(session: &mut Option<PgConnection>, options: &PgConnectOptions, clock: &Clock) -> Result<(), String> {
    let ask = async {
        let mut open = match session.take() {
            Some(open) => open,
            None => PgConnection::connect_with(options).await?,
        };
        let asked = Instant::now();
        let answer = sqlx::query!(
            r#"select current_setting('transaction_read_only')::bool as "read_only!", clock_timestamp() as "now!""#,
        );
        let answer = answer.fetch_one(&mut open).await?;
        // It looked at its clock somewhere between.
        clock.set(asked + asked.elapsed() / 2, answer.now);
        Ok::<_, sqlx::Error>((open, answer.read_only))
    };
    let answered = tokio::time::timeout(ANSWERS_WITHIN, ask).await.map_err(|_| "it is silent".to_owned())?;
    let (open, read_only) = answered.map_err(|error| error.to_string())?;
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
            let answer = service.check(request).await.expect("it is known").into_inner();
            if answer.status == status as i32 {
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
        let story = async {
            tell(format!(r#"alter database "{name}" allow_connections false"#)).await;
            tell(format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")).await;
            until(&health, ServingStatus::NotServing).await;
            tell(format!(r#"alter database "{name}" allow_connections true"#)).await;
            until(&health, ServingStatus::Serving).await;
            // Sessions that end are no reason to send anybody away.
            tell(format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")).await;
        };
        tokio::select! {
            never = following => match never {},
            () = story => {}
        }
    }

    /// Whatever a replica believed, its clock is the database's as soon as that was asked.
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
                    let ask = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#);
                    let theirs = ask.fetch_one(&db).await.expect("it answers");
                    if (clock.now() - theirs).abs() < hour / 60 {
                        return;
                    }
                    assert!(begun.elapsed() < Duration::from_secs(20), "it was never asked");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                never = follow("test", &[], &health, &db, clock) => match never {},
                () = agrees => {}
            }
        }
    }

    /// As a failover does: sessions stay open to a server that has become a standby.
    #[sqlx::test(migrations = false)]
    async fn a_role_whose_database_is_read_only_does_not_serve_and_its_pool_recovers(db: PgPool) {
        let (options, health) = (db.connect_options(), HealthReporter::new());
        let name = options.get_database().expect("each test has one").to_owned();
        let mut elsewhere =
            PgConnection::connect_with(&options.as_ref().clone().database("postgres")).await.expect("up");
        let mut tell = async |sql: String| elsewhere.execute(AssertSqlSafe(sql)).await.map(drop).expect("it is done");
        let url = options.to_url_lossy().to_string().into();
        let pool = db::pool(&url, 1).expect("a URL");
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
