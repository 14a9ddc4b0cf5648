//! Kafka: one node that is broker and controller.

use anyhow::Result;
use rustix::process::Signal;

use crate::install::run;
use crate::layout::{Layout, root};
use crate::spec::{Ready, Spec};

/// Those that may identify themselves with a password, at a port for that.
pub(crate) fn users() -> impl Iterator<Item = &'static str> {
    roster::services().map(|role| role.name).chain(["check", "migrate"])
}

/// The settings of `souk` for passwords instead of certificates.
pub fn with_passwords(layout: &Layout) -> Vec<(String, String)> {
    let settings = [
        ("SECURITY", "scram".to_owned()),
        ("BROKERS", format!("127.0.0.1:{}", layout.ports.kafka_sasl())),
        ("PASSWORD_DIRECTORY", layout.home.join("keys").to_string_lossy().into_owned()),
        ("CA_FILE", layout.pki.join("ca.crt").to_string_lossy().into_owned()),
    ];
    settings.into_iter().map(|(name, value)| (format!("SOUK_KAFKA_{name}"), value)).collect()
}

/// Everybody on this machine may do everything, in plain text.
pub async fn plain(layout: &Layout) -> Result<Spec> {
    start(layout, "plain.properties", &[]).await
}

/// Clients have certificates or passwords.
pub async fn secured(layout: &Layout) -> Result<Spec> {
    let home = layout.home.join("kafka");
    std::fs::create_dir_all(&home)?;
    let read = |extension: &str| std::fs::read_to_string(layout.pki.join("kafka").with_extension(extension));
    let keystore = home.join("keystore.pem");
    std::fs::write(&keystore, [read("key")?, read("crt")?].concat())?;
    let mut formatting = Vec::new();
    for user in users() {
        let password = layout.password(user)?;
        formatting.extend(["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]);
    }
    start(layout, "secure.properties", &formatting.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// The settings of a client that may do everything, in the words of librdkafka.
pub fn administrator(layout: &Layout) -> impl Iterator<Item = (String, String)> {
    let file = |name: &str| layout.pki.join(name).to_string_lossy().into_owned();
    let settings = [
        ("bootstrap.servers", format!("127.0.0.1:{}", layout.ports.kafka())),
        ("security.protocol", "ssl".to_owned()),
        ("ssl.ca.location", file("ca.crt")),
        ("ssl.certificate.location", file("kafka.crt")),
        ("ssl.key.location", file("kafka.key")),
        ("log.connection.close", "false".to_owned()),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value))
}

async fn start(layout: &Layout, listeners: &str, formatting: &[&str]) -> Result<Spec> {
    let (home, ports, folder) = (layout.home.join("kafka"), layout.ports, root().join("dev/stack/kafka"));
    std::fs::create_dir_all(&home)?;
    let classes = format!("{}/*", layout.tools.join("kafka/libs").display());
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let properties = [read("server.properties")?, read(listeners)?].concat();
    let properties = properties
        .replace("BROKER_PORT", &ports.kafka().to_string())
        .replace("SASL_PORT", &ports.kafka_sasl().to_string())
        .replace("CONTROLLER_PORT", &ports.kafka_controller().to_string())
        .replace("KEYSTORE", &home.join("keystore.pem").to_string_lossy())
        .replace("PKI", &layout.pki.to_string_lossy())
        .replace("DIR", &home.join("data").to_string_lossy());
    let file = home.join("server.properties");
    std::fs::write(&file, properties)?;
    let file = file.to_string_lossy().into_owned();
    if !home.join("data/meta.properties").exists() {
        let format =
            ["-cp", &classes, "kafka.tools.StorageTool", "format", "-t", "c291ay1rYWZrYS1sYXB0b3", "-c", &file];
        run("java", &[&format[..], formatting].concat(), &home).await?;
    }
    let logging = format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display());
    let arguments = ["-Xmx384m", "-XX:+UseSerialGC", &logging, "-cp", &classes, "kafka.Kafka", &file];
    Ok(Spec {
        name: "kafka",
        program: "java".into(),
        arguments: arguments.map(str::to_owned).to_vec(),
        environment: vec![],
        user: None,
        port: ports.kafka(),
        ready: Ready::Listening,
        log: layout.log("kafka"),
        stop: Signal::TERM,
        lock: None,
    })
}
