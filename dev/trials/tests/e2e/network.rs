//! Postgres lets nobody in without TLS and a password, Kafka nobody without a certificate or a password, and a principal writes
//! and reads only the topics that are its business. Nobody talks to a server whose certificate is of another authority.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};
use stack::kafka;
use stack::layout::Layout;
use stack::parts::souk;
use stack::pki::{Authority, Validity};
use trials::topics::administrator;

use crate::shared;

/// The server's refusal of an authentication, and of a connection that no line of `pg_hba.conf` allows.
const WRONG_PASSWORD: &str = "28P01";
const NOT_ALLOWED: &str = "28000";

async fn refusal(options: PgConnectOptions) -> Result<sqlx::Error> {
    PgConnection::connect_with(&options).await.err().context("the connection is accepted")
}

#[test]
fn postgres_asks_for_tls_and_a_password() -> Result<()> {
    shared(async |stack| {
        let own = PgConnectOptions::from_str(&stack.layout.database("souk_order", "souk_order")?)?;
        PgConnection::connect_with(&own).await.context("with both")?.close().await?;
        for (options, code) in [
            (own.clone().ssl_mode(PgSslMode::Disable), NOT_ALLOWED),
            (own.clone().password("another"), WRONG_PASSWORD),
            // Of another service.
            (own.clone().username("souk_payment"), WRONG_PASSWORD),
        ] {
            let refused = refusal(options).await?;
            let found = refused.as_database_error().and_then(|error| error.code());
            ensure!(found.as_deref() == Some(code), "{refused}");
        }
        Ok(())
    })
}

#[test]
fn another_authority_is_not_trusted() -> Result<()> {
    shared(async |stack| {
        let folder = std::env::temp_dir().join(format!("souk-authority-{}", uuid::Uuid::now_v7()));
        drop(Authority::open(&folder)?);
        let own = PgConnectOptions::from_str(&stack.layout.database("souk_order", "souk_order")?)?;
        let refused = refusal(own.ssl_root_cert(folder.join("ca.crt"))).await?;
        std::fs::remove_dir_all(&folder)?;
        ensure!(format!("{refused:?}").contains("InvalidCertificate(BadSignature"), "{refused:?}");
        Ok(())
    })
}

const PATIENCE: Duration = Duration::from_secs(10);

/// A client with the certificate of a party.
fn client(layout: &Layout, party: &str) -> ClientConfig {
    with_certificate(layout, &layout.pki, party)
}

fn with_certificate(layout: &Layout, folder: &std::path::Path, party: &str) -> ClientConfig {
    let mut config = administrator(layout);
    for (setting, extension) in [("ssl.certificate.location", "crt"), ("ssl.key.location", "key")] {
        config.set(setting, folder.join(party).with_extension(extension).to_string_lossy());
    }
    config
}

async fn write(mut config: ClientConfig, topic: &str) -> Result<Result<(), KafkaError>> {
    let producer: FutureProducer = config.set("message.timeout.ms", "10000").create()?;
    let record = FutureRecord::to(topic).key("forged").payload("forged");
    Ok(producer.send(record, PATIENCE).await.map(drop).map_err(|(error, _)| error))
}

fn read(config: &ClientConfig, topic: &str) -> Result<Result<(), KafkaError>> {
    let consumer: BaseConsumer = config.clone().set("group.id", "curious").create()?;
    Ok(consumer.fetch_watermarks(topic, 0, PATIENCE).map(drop))
}

#[test]
fn a_principal_writes_and_reads_only_its_topics() -> Result<()> {
    shared(async |stack| {
        let refused = |outcome: Result<(), KafkaError>| {
            outcome.err().and_then(|error| error.rdkafka_error_code())
                == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
        };
        for (party, topic) in [("payment", "souk.order.v1"), ("check", "souk.order.v1"), ("order", "souk.payment.v1")] {
            let outcome = write(client(&stack.layout, party), topic).await?;
            ensure!(refused(outcome), "{party} writes {topic}");
        }
        for (party, topic) in [("user", "souk.order.v1"), ("payment", "souk.inventory.v1"), ("dev", "souk.order.v1")] {
            // To those who may not read it, the broker does not show it.
            ensure!(read(&client(&stack.layout, party), topic)?.is_err(), "{party} reads {topic}");
        }
        for party in ["inventory", "payment", "check"] {
            read(&client(&stack.layout, party), "souk.order.v1")?.with_context(|| format!("{party} reads orders"))?;
        }
        Ok(())
    })
}

#[test]
fn kafka_knows_nobody_without_a_certificate_of_its_authority() -> Result<()> {
    shared(async |stack| {
        let layout = &stack.layout;
        let folder = std::env::temp_dir().join(format!("souk-authority-{}", uuid::Uuid::now_v7()));
        Authority::open(&folder)?.issue("order", Validity::of(time::Duration::days(1)))?;
        let stranger = with_certificate(layout, &folder, "order");
        let mut nobody = administrator(layout);
        nobody.remove("ssl.certificate.location");
        nobody.remove("ssl.key.location");
        let mut distrustful = client(layout, "order");
        distrustful.set("ssl.ca.location", folder.join("ca.crt").to_string_lossy());
        let mut plain = ClientConfig::new();
        plain.set("bootstrap.servers", format!("127.0.0.1:{}", layout.ports.kafka()));
        for (what, config) in
            [("a stranger", stranger), ("nobody", nobody), ("who distrusts it", distrustful), ("plain text", plain)]
        {
            ensure!(read(&config, "souk.order.v1")?.is_err(), "{what} is let in");
        }
        read(&client(layout, "order"), "souk.inventory.v1")?.context("with the right certificate")?;
        Ok(std::fs::remove_dir_all(folder)?)
    })
}

#[test]
fn passwords_do_where_a_broker_has_no_certificates_of_clients() -> Result<()> {
    shared(async |stack| {
        let settings = kafka::with_passwords(&stack.layout);
        let said = souk(&stack.layout, &settings, &["check"]).await?;
        ensure!(String::from_utf8_lossy(&said).contains("I5"), "it reads all topics");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", stack.layout.ports.kafka_sasl()));
        config.set("security.protocol", "sasl_ssl").set("sasl.mechanism", "SCRAM-SHA-512");
        config.set("ssl.ca.location", stack.layout.pki.join("ca.crt").to_string_lossy());
        config.set("sasl.username", "check").set("sasl.password", stack.layout.password("check")?);
        read(&config, "souk.order.v1")?.context("with the right password")?;
        config.set("sasl.password", "another");
        ensure!(read(&config, "souk.order.v1")?.is_err(), "another password is accepted");
        Ok(())
    })
}
