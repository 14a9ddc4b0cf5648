//! `souk migrate`: databases, database roles, tables, grants and topics. Run by an administrator before roles start, as
//! often as one likes. A service's role owns nothing: it may read and write its tables, and only add to some.

use std::time::Duration;

use chassis::config::Secret;
use chassis::db::Schema;
use clap::Args;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;

/// Where everything that is migrated is.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// A database administrator, who may create databases and roles.
    #[arg(
        id = "SOUK_MIGRATE_DATABASE_URL",
        long = "database-url",
        env = "SOUK_MIGRATE_DATABASE_URL",
        default_value = "postgres://postgres@127.0.0.1:15432/postgres",
        hide_env_values = true
    )]
    admin: Secret,
    /// Kafka's bootstrap servers, comma-separated.
    #[arg(
        id = "SOUK_KAFKA_BROKERS",
        long = "kafka-brokers",
        env = "SOUK_KAFKA_BROKERS",
        default_value = "127.0.0.1:19092"
    )]
    kafka_brokers: String,
    /// How many copies of each topic Kafka keeps: 3 in a cluster.
    #[arg(
        id = "SOUK_KAFKA_REPLICATION",
        long = "kafka-replication",
        env = "SOUK_KAFKA_REPLICATION",
        default_value_t = 1
    )]
    kafka_replication: i32,
    #[command(flatten)]
    databases: Databases,
}

/// The databases of all services.
#[derive(Debug, Clone, Args)]
pub(crate) struct Databases {
    /// The user service's database, with its role.
    #[arg(
        id = "USER_DATABASE_URL",
        long = "user-database-url",
        env = "USER_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_user@127.0.0.1:15432/souk_user"
    )]
    pub(crate) user: Secret,
    /// The product service's database, with its role.
    #[arg(
        id = "PRODUCT_DATABASE_URL",
        long = "product-database-url",
        env = "PRODUCT_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_product@127.0.0.1:15432/souk_product"
    )]
    pub(crate) product: Secret,
    /// The inventory service's database, with its role.
    #[arg(
        id = "INVENTORY_DATABASE_URL",
        long = "inventory-database-url",
        env = "INVENTORY_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_inventory@127.0.0.1:15432/souk_inventory"
    )]
    pub(crate) inventory: Secret,
    /// The order service's database, with its role.
    #[arg(
        id = "ORDER_DATABASE_URL",
        long = "order-database-url",
        env = "ORDER_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_order@127.0.0.1:15432/souk_order"
    )]
    pub(crate) order: Secret,
    /// The payment service's database, with its role.
    #[arg(
        id = "PAYMENT_DATABASE_URL",
        long = "payment-database-url",
        env = "PAYMENT_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_payment@127.0.0.1:15432/souk_payment"
    )]
    pub(crate) payment: Secret,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{variable}: {why}")]
    Config { variable: String, why: String },
    #[error("the database of {service}: {source}")]
    Database { service: &'static str, source: sqlx::Error },
    #[error("the tables of {service}: {source}")]
    Migrate { service: &'static str, source: sqlx::migrate::MigrateError },
    #[error("the topics: {0}")]
    Topics(#[from] bus::Error),
}

pub(crate) async fn run(config: &Config) -> Result<(), Error> {
    let databases = &config.databases;
    let services = [
        (&user::SCHEMA, &databases.user),
        (&product::SCHEMA, &databases.product),
        (&inventory::SCHEMA, &databases.inventory),
        (&order::SCHEMA, &databases.order),
        (&payment::SCHEMA, &databases.payment),
    ];
    for (schema, url) in services {
        migrate(&config.admin, schema, url).await?;
        println!("{}: up to date", schema.service);
    }
    bus::topics::create(&config.kafka_brokers, config.kafka_replication, Duration::from_secs(30)).await?;
    println!("topics: up to date");
    Ok(())
}

/// What a service's URL says: who it connects as, and to what.
struct Target {
    role: String,
    password: Option<String>,
    database: String,
}

impl Target {
    fn parse(service: &str, url: &Secret) -> Result<Self, Error> {
        let refuse = |why: &str| Error::Config {
            variable: format!("{}_DATABASE_URL", service.to_uppercase()),
            why: why.to_owned(),
        };
        let url = Url::parse(url.reveal()).map_err(|_| refuse("it is not a URL"))?;
        let role = url.username().to_owned();
        let database = url.path().trim_start_matches('/').to_owned();
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !plain(&role) || !plain(&database) {
            return Err(refuse("it needs a role and a database, named in lower-case letters and underscores"));
        }
        Ok(Self { role, password: url.password().map(str::to_owned), database })
    }
}

async fn migrate(admin: &Secret, schema: &Schema, url: &Secret) -> Result<(), Error> {
    let target = Target::parse(schema.service, url)?;
    let failed = |source| Error::Database { service: schema.service, source };
    let options: PgConnectOptions = admin.reveal().parse().map_err(failed)?;
    let mut server = PgConnection::connect_with(&options).await.map_err(failed)?;
    create(&mut server, &target).await.map_err(failed)?;
    server.close().await.map_err(failed)?;

    let mut db = PgConnection::connect_with(&options.database(&target.database)).await.map_err(failed)?;
    let migrated = schema.migrator.run_direct(None, &mut db, false).await;
    migrated.map_err(|source| Error::Migrate { service: schema.service, source })?;
    grant(&mut db, &target, schema.append_only).await.map_err(failed)?;
    db.close().await.map_err(failed)
}

async fn create(server: &mut PgConnection, target: &Target) -> sqlx::Result<()> {
    let Target { role, password, database } = target;
    let exists = sqlx::query_scalar!(r#"select exists(select from pg_roles where rolname = $1) as "exists!""#, role);
    if !exists.fetch_one(&mut *server).await? {
        execute(server, format!("create role {role} login")).await?;
    }
    if let Some(password) = password {
        let quoted = sqlx::query_scalar!(r#"select quote_literal($1) as "quoted!""#, password);
        let quoted = quoted.fetch_one(&mut *server).await?;
        execute(server, format!("alter role {role} password {quoted}")).await?;
    }
    let exists =
        sqlx::query_scalar!(r#"select exists(select from pg_database where datname = $1) as "exists!""#, database);
    if !exists.fetch_one(&mut *server).await? {
        execute(server, format!("create database {database}")).await?;
        execute(server, format!("revoke all on database {database} from public")).await?;
    }
    // What is temporary is a session's own: such as tables that are built again, to be compared.
    execute(server, format!("grant connect, temporary on database {database} to {role}")).await
}

async fn grant(db: &mut PgConnection, target: &Target, append_only: &[&str]) -> sqlx::Result<()> {
    let role = &target.role;
    execute(db, format!("grant select, insert, update, delete on all tables in schema public to {role}")).await?;
    execute(db, format!("grant usage on all sequences in schema public to {role}")).await?;
    for table in append_only {
        execute(db, format!("revoke update, delete on {table} from {role}")).await?;
    }
    execute(db, format!("revoke all on _sqlx_migrations from {role}")).await
}

/// Names were checked to be plain; nothing else goes into these statements.
async fn execute(db: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    db.execute(AssertSqlSafe(sql)).await.map(drop)
}
