//! `souk migrate` creates databases, database roles, tables, grants and topics. An administrator runs it before roles start;
//! it is idempotent. A service's database role never owns a table: it may read and write its tables, and only insert into
//! append-only ones.

use std::time::Duration;

use bus::Brokers;
use bus::access::Right;
use chassis::Backoff;
use chassis::boot::config::{Kafka, KafkaSecurity};
use chassis::boot::{Database, Databases, Prefix, Prefixed, Schema};
use chassis::event::dead_letter;
use chassis::tls::Tls;
use clap::{ArgAction, Args};
use contracts::event::TOPICS;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;

use crate::roles::SCHEMAS;
use crate::scram;

/// SQLSTATEs for a lock that was not acquired within `lock_timeout`, and for a deadlock.
const LOCKED_OUT: [&str; 2] = ["55P03", "40P01"];
const KAFKA_TIMEOUT: Duration = Duration::from_secs(30);

/// The databases and the Kafka cluster to migrate.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(flatten)]
    admin: Prefixed<Admin>,
    #[command(flatten)]
    tls: Prefixed<Tls>,
    #[command(flatten)]
    kafka: Prefixed<Kafka>,
    /// Replication factor of each topic: 3 in a cluster.
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    kafka_replication: i32,
    /// Whether to give each service the right to write its topic and to read those that it consumes, and `check` to read all.
    /// Brokers refuse that to principals that are no administrators.
    #[arg(default_value_t = true, action = ArgAction::Set)]
    kafka_acls: bool,
    #[command(flatten)]
    databases: Databases,
}

impl Prefix for Config {
    const PREFIX: &'static str = "souk";
}

/// A database administrator, who may create databases and roles.
#[derive(Debug, Clone, Args)]
struct Admin {
    #[command(flatten)]
    database: Database,
}

impl Prefix for Admin {
    const PREFIX: &'static str = "souk_migrate";

    fn default_of(field: &str) -> Option<String> {
        (field == "database_url").then(|| "postgres://postgres@127.0.0.1:15432/postgres".to_owned())
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{variable}: {why}")]
    Config { variable: String, why: String },
    #[error("the database of {service}: {source}")]
    Database { service: &'static str, source: sqlx::Error },
    #[error("the tables of {service}: {source}")]
    Migrate { service: &'static str, source: sqlx::migrate::MigrateError },
    #[error("the tables of {service}: a migration did not get its lock in {tries} tries: {source}; {oldest}")]
    LockedOut { service: &'static str, tries: u32, source: MigrateError, oldest: String },
    #[error("the topics: {0}")]
    Topics(#[from] bus::Error),
    #[error(transparent)]
    Kafka(#[from] bus::Invalid),
}

pub(crate) async fn run(config: &Config) -> Result<(), Error> {
    // Everything is parsed before anything is changed.
    let admin = config.admin.database.options();
    let admin = admin.map_err(|invalid| Error::Config {
        variable: format!("SOUK_MIGRATE_{}", invalid.setting).to_uppercase(),
        why: invalid.why,
    })?;
    let targets = config.databases.iter().zip(SCHEMAS).map(|((role, database), schema)| {
        debug_assert_eq!(role.name, schema.service, "one order everywhere");
        Ok((schema, Target::parse(*role, database)?))
    });
    let targets = targets.collect::<Result<Vec<_>, Error>>()?;
    let brokers = Brokers::new(&config.kafka, &config.tls.directory, "migrate")?;
    for (schema, target) in targets {
        migrate(&admin, schema, &target).await?;
        println!("{}: up to date", schema.service);
    }
    bus::topics::create(&brokers, TOPICS, config.kafka_replication, KAFKA_TIMEOUT).await?;
    println!("topics: up to date");
    if config.kafka_acls && config.kafka.security != KafkaSecurity::Plain {
        let granted = tokio::task::spawn_blocking(move || bus::access::grant(&brokers, &rights(), KAFKA_TIMEOUT));
        granted.await.expect("it does not panic")?;
        println!("access to topics: up to date");
    }
    Ok(())
}

/// Only its owner writes a topic, and only those that consume it read it. `souk check` reads all.
fn rights() -> Vec<(&'static str, Right<'static>)> {
    let mut rights = Vec::new();
    for schema in SCHEMAS {
        let own = TOPICS
            .iter()
            .find(|topic| topic.strip_prefix("souk.").and_then(|it| it.strip_suffix(".v1")) == Some(schema.service));
        rights.extend(own.map(|topic| (schema.service, Right::Write { topic })));
        rights.extend(schema.consumes.iter().map(|topic| (schema.service, Right::Read { topic })));
        if !schema.consumes.is_empty() {
            rights.push((schema.service, Right::Join { group: schema.service }));
        }
    }
    rights.extend(TOPICS.iter().map(|topic| ("check", Right::Read { topic })));
    rights.push(("check", Right::Join { group: "souk-check" }));
    rights
}

/// The database role and the database of a service, from its URL.
struct Target {
    role: String,
    password: Option<SecretString>,
    database: String,
}

impl Target {
    fn parse(service: roster::Role, login: &Database) -> Result<Self, Error> {
        let refuse = |setting: &str, why: String| Error::Config { variable: service.variable(setting), why };
        login.options().map_err(|invalid| refuse(invalid.setting, invalid.why))?;
        let refuse = |why: &str| refuse("database_url", why.to_owned());
        let url = Url::parse(login.database_url.expose_secret()).map_err(|_| refuse("it is not a URL"))?;
        let role = url.username().to_owned();
        let database = url.path().trim_start_matches('/').to_owned();
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !plain(&role) || !plain(&database) {
            return Err(refuse("it needs a role and a database, named in lower-case letters and underscores"));
        }
        // When the service connects, they would override what was read above.
        if url.query_pairs().any(|(name, _)| ["user", "password", "dbname"].contains(&&*name)) {
            return Err(refuse("role, password and database belong before the question mark"));
        }
        // The service decodes it in the same way when it connects.
        let password = url.password().map(|text| percent_decode_str(text).decode_utf8().map(|it| it.into_owned()));
        let password = password.transpose().map_err(|_| refuse("its password is not UTF-8"))?.map(SecretString::from);
        let file = login.password().map_err(|invalid| refuse(&invalid.why))?;
        Ok(Self { role, password: password.or(file), database })
    }
}

async fn migrate(admin: &PgConnectOptions, schema: &Schema, target: &Target) -> Result<(), Error> {
    let failed = |source| Error::Database { service: schema.service, source };
    let mut server = PgConnection::connect_with(admin).await.map_err(failed)?;
    create(&mut server, target).await.map_err(failed)?;
    server.close().await.map_err(failed)?;

    let options = admin.clone().database(&target.database);
    let mut db = PgConnection::connect_with(&options).await.map_err(failed)?;
    make_tables(&mut db, schema.service, schema.migrator, LockRetry::default()).await?;
    grant(&mut db, &target.role, schema.append_only).await.map_err(failed)?;
    db.close().await.map_err(failed)
}

async fn create(server: &mut PgConnection, target: &Target) -> sqlx::Result<()> {
    let Target { role, password, database } = target;
    let exists = sqlx::query_scalar!(r#"select exists(select from pg_roles where rolname = $1) as "exists!""#, role);
    if !exists.fetch_one(&mut *server).await? {
        execute(server, format!("create role {role} login")).await?;
    }
    if let Some(password) = password {
        execute(server, format!("alter role {role} password '{}'", scram::verifier(password.expose_secret()))).await?;
    }
    let exists =
        sqlx::query_scalar!(r#"select exists(select from pg_database where datname = $1) as "exists!""#, database);
    if !exists.fetch_one(&mut *server).await? {
        execute(server, format!("create database {database}")).await?;
        execute(server, format!("revoke all on database {database} from public")).await?;
    }
    // `souk order rebuild` creates temporary tables, which only its own session sees.
    execute(server, format!("grant connect, temporary on database {database} to {role}")).await
}

/// How a migration waits for a lock. While it waits, later sessions queue behind it, so each try is short, with a pause in
/// which they proceed.
#[derive(Clone, Copy)]
struct LockRetry {
    timeout: Duration,
    tries: u32,
    pause: Backoff,
}

impl Default for LockRetry {
    fn default() -> Self {
        let pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        Self { timeout: Duration::from_secs(3), tries: 20, pause }
    }
}

async fn make_tables(
    db: &mut PgConnection,
    service: &'static str,
    migrator: &Migrator,
    retry: LockRetry,
) -> Result<(), Error> {
    let failed = |source| Error::Database { service, source };
    let mut tries = 0;
    for migration in migrator.iter() {
        // A migration outside of a transaction, such as `create index concurrently`, blocks no session while it waits, and would
        // be left half done.
        let limit = if migration.no_tx { 0 } else { retry.timeout.as_millis() };
        execute(db, format!("set lock_timeout = {limit}")).await.map_err(failed)?;
        while let Err(source) = migrator.run_direct(Some(migration.version), db, false).await {
            tries += 1;
            if !is_locked_out(&source) {
                return Err(Error::Migrate { service, source });
            }
            let oldest = find_oldest_transaction(db).await.map_err(failed)?;
            if tries == retry.tries {
                return Err(Error::LockedOut { service, tries, source, oldest });
            }
            println!("{service}: {source}; {oldest}; the migration is retried");
            tokio::time::sleep(retry.pause.after(tries)).await;
        }
    }
    execute(db, "reset lock_timeout".to_owned()).await.map_err(failed)
}

fn is_locked_out(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| LOCKED_OUT.contains(&&*code))
}

/// Describes the session that probably holds the lock.
async fn find_oldest_transaction(db: &mut PgConnection) -> sqlx::Result<String> {
    let oldest = sqlx::query!(
        r#"select pid as "pid!", application_name, state, extract(epoch from now() - xact_start)::bigint as "age!"
           from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
           order by xact_start limit 1"#,
    );
    Ok(match oldest.fetch_optional(db).await? {
        Some(row) => {
            let (application, state) = (row.application_name.unwrap_or_default(), row.state.unwrap_or_default());
            format!("the oldest transaction is {} s old, of session {} (`{application}`, {state})", row.age, row.pid)
        }
        None => "no other transaction is open by now".to_owned(),
    })
}

/// In one transaction, so that an append-only table is never open to updates.
async fn grant(db: &mut PgConnection, role: &str, append_only: &[&str]) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    execute(&mut tx, format!("grant select, insert, update, delete on all tables in schema public to {role}")).await?;
    execute(&mut tx, format!("grant usage on all sequences in schema public to {role}")).await?;
    for table in append_only.iter().chain([&dead_letter::AUDIT]) {
        execute(&mut tx, format!("revoke update, delete on {table} from {role}")).await?;
    }
    execute(&mut tx, format!("revoke insert, update, delete on _sqlx_migrations from {role}")).await?;
    tx.commit().await
}

/// Statements contain only names that were checked to be plain.
async fn execute(db: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    db.execute(AssertSqlSafe(sql)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;
    use uuid::Uuid;

    use super::*;

    fn parse(url: &str) -> Result<Target, Error> {
        let login = Database { database_url: url.into(), database_password_file: None };
        Target::parse(roster::ORDER, &login)
    }

    #[test]
    fn a_password_is_decoded_as_the_service_decodes_it() {
        let target = parse("postgres://souk_order:p%40ss%2Fw%C3%B6rd%25@127.0.0.1/souk_order").expect("a good URL");
        assert_eq!(target.password.expect("it has one").expose_secret(), "p@ss/w\u{f6}rd%");
        assert_eq!((target.role.as_str(), target.database.as_str()), ("souk_order", "souk_order"));
        assert!(parse("postgres://souk_order@127.0.0.1/souk_order").expect("without one").password.is_none());
    }

    #[test]
    fn a_url_that_the_service_would_read_differently_is_refused() {
        for odd in [
            "souk_order",
            "postgres://127.0.0.1/souk_order",
            "postgres://souk_order@127.0.0.1/",
            "postgres://souk%20order@127.0.0.1/souk_order",
            "postgres://souk_order:%ff@127.0.0.1/souk_order",
            "postgres://souk_order@127.0.0.1/souk_order?password=x",
            "postgres://souk_order@127.0.0.1/souk_order?sslmode=disable&user=postgres",
            "postgres://souk_order@127.0.0.1/souk_order?dbname=souk_user",
        ] {
            let refused = parse(odd).err().unwrap_or_else(|| panic!("{odd} is accepted"));
            assert!(refused.to_string().starts_with("ORDER_DATABASE_URL: "), "{refused}");
        }
        parse("postgres://souk_order@127.0.0.1/souk_order?sslmode=disable").expect("other settings are the service's");
    }

    #[sqlx::test(migrator = "order::MIGRATOR")]
    async fn grants_come_all_at_once_or_not_at_all(_: PgPoolOptions, options: PgConnectOptions) {
        let mut db = PgConnection::connect_with(&options).await.expect("Postgres is there");
        // Roles belong to the whole server, so the name must be unique.
        let role: String = Uuid::now_v7().simple().to_string().bytes().map(|it| (it % 26 + b'a') as char).collect();
        execute(&mut db, format!("create role {role}")).await.expect("a role");
        let may = async |db: &mut PgConnection, what: &'static str| {
            let query = sqlx::query_scalar::<_, bool>("select has_table_privilege($1, 'order_event', $2)");
            query.bind(&role).bind(what).fetch_one(db).await.expect("an answer")
        };
        grant(&mut db, &role, &["order_event", "nowhere"]).await.expect_err("there is no such table");
        assert!(!may(&mut db, "select").await && !may(&mut db, "update").await, "nothing was granted");
        grant(&mut db, &role, &["order_event"]).await.expect("granted");
        assert!(may(&mut db, "insert").await && !may(&mut db, "update").await && !may(&mut db, "delete").await);
        let audit =
            sqlx::query_scalar::<_, bool>("select has_table_privilege($1, 'dead_letter_discard', 'delete, update')");
        assert!(!audit.bind(&role).fetch_one(&mut db).await.expect("an answer"), "the audit trail is only added to");
        execute(&mut db, format!("drop owned by {role}")).await.expect("nothing is left to it");
        execute(&mut db, format!("drop role {role}")).await.expect("the role goes");
    }

    #[sqlx::test(migrator = "order::MIGRATOR")]
    async fn a_password_never_stands_in_a_statement(_: PgPoolOptions, options: PgConnectOptions) {
        let mut db = PgConnection::connect_with(&options).await.expect("Postgres is there");
        let role: String = Uuid::now_v7().simple().to_string().bytes().map(|it| (it % 26 + b'a') as char).collect();
        // Exists on every server: the test creates only the role.
        let database = "postgres".to_owned();
        for password in ["pencil and paper", "p@ss'w\u{f6}rd\u{2168}"] {
            let target = Target { role: role.clone(), password: Some(password.into()), database: database.clone() };
            let kept = sqlx::query_scalar::<_, String>("select rolpassword from pg_authid where rolname = $1");
            create(&mut db, &target).await.expect("created");
            let ours = kept.bind(&role).fetch_one(&mut db).await.expect("it has a password");
            assert!(!ours.contains(password) && scram::tests::is_of(&ours, password), "{ours}");
            // Postgres derives an equivalent verifier from the clear text.
            let quoted = password.replace('\'', "''");
            execute(&mut db, format!("alter role {role} password '{quoted}'")).await.expect("changed");
            let kept = sqlx::query_scalar::<_, String>("select rolpassword from pg_authid where rolname = $1");
            let theirs = kept.bind(&role).fetch_one(&mut db).await.expect("it has a password");
            assert!(theirs != ours && scram::tests::is_of(&theirs, password), "{theirs}");
        }
        execute(&mut db, format!("drop owned by {role}")).await.expect("nothing is left to it");
        execute(&mut db, format!("drop role {role}")).await.expect("the role goes");
    }

    #[sqlx::test(migrator = "order::MIGRATOR")]
    async fn a_migration_waits_for_a_lock_in_short_tries(_: PgPoolOptions, options: PgConnectOptions) {
        let folder = std::env::temp_dir().join(format!("souk-migrations-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).expect("the folder for temporary files can be written");
        let sql = r#"alter table "order" add column probe integer"#;
        std::fs::write(folder.join("9999_probe.sql"), sql).expect("written");
        let mut migrator = Migrator::new(folder.clone()).await.expect("a migration");
        migrator.set_ignore_missing(true);
        std::fs::remove_dir_all(&folder).expect("it goes");

        let connect = async || PgConnection::connect_with(&options).await.expect("Postgres is there");
        let (mut reader, mut db) = (connect().await, connect().await);
        let open = r#"begin; select from "order""#;
        reader.execute(open).await.expect("it reads");
        let retry = LockRetry {
            timeout: Duration::from_millis(20),
            tries: 2,
            pause: Backoff::new(Duration::from_millis(1), Duration::from_millis(2)),
        };
        let refused =
            make_tables(&mut db, "order", &migrator, retry).await.expect_err("the reader holds a lock").to_string();
        assert!(refused.contains("9999") && refused.contains("idle in transaction"), "{refused}");

        // Retried until the reader commits, which it does once a session waits for its lock.
        let retry = LockRetry { tries: 10_000, ..retry };
        let (made, ()) = tokio::join!(make_tables(&mut db, "order", &migrator, retry), async {
            let waits = "select exists (select from pg_locks where not granted and pid <> pg_backend_pid()
                           and database = (select oid from pg_database where datname = current_database()))";
            while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut reader).await.expect("locks") {}
            reader.execute("commit").await.expect("it goes");
        });
        made.expect("the lock is free");
    }
}
