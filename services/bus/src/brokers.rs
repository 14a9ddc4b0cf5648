//! How one principal reaches the brokers.

use std::fmt;
use std::path::Path;

use chassis::boot::config::{Kafka, KafkaSecurity, first_line};
use rdkafka::ClientConfig;

/// The brokers, and how a principal identifies itself: a role, `migrate` or `check`. Brokers decide by principal who may write and
/// who may read a topic.
#[derive(Clone)]
pub struct Brokers(ClientConfig);

/// It may have a password.
impl fmt::Debug for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brokers")
    }
}

/// A setting that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {why}")]
pub struct Invalid {
    pub variable: &'static str,
    pub why: String,
}

impl Brokers {
    /// `certificates` is the folder of `ca.crt`, and of the certificate and the key of the principal.
    pub fn new(kafka: &Kafka, certificates: &Path, principal: &str) -> Result<Self, Invalid> {
        let Self(mut config) = Self::plain(&kafka.brokers);
        let mut set_file = |name: &str, variable, file: &Path| {
            if !file.is_file() {
                return Err(Invalid { variable, why: format!("{} is not a file", file.display()) });
            }
            config.set(name, file.to_string_lossy());
            Ok(())
        };
        match kafka.security {
            KafkaSecurity::Certificate => {
                let file = |extension: &str| certificates.join(principal).with_extension(extension);
                set_file("ssl.ca.location", "SOUK_TLS_DIRECTORY", &certificates.join("ca.crt"))?;
                set_file("ssl.certificate.location", "SOUK_TLS_DIRECTORY", &file("crt"))?;
                set_file("ssl.key.location", "SOUK_TLS_DIRECTORY", &file("key"))?;
                config.set("security.protocol", "ssl");
            }
            KafkaSecurity::Scram => {
                if let Some(ca) = &kafka.ca_file {
                    set_file("ssl.ca.location", "SOUK_KAFKA_CA_FILE", ca)?;
                }
                let folder = kafka.password_directory.as_deref();
                let folder = folder.ok_or_else(|| "it is required with SOUK_KAFKA_SECURITY=scram".to_owned());
                let password = folder.and_then(|folder| first_line(&folder.join(format!("{principal}.password"))));
                let password = password.map_err(|why| Invalid { variable: "SOUK_KAFKA_PASSWORD_DIRECTORY", why })?;
                config.set("security.protocol", "sasl_ssl").set("sasl.mechanism", "SCRAM-SHA-512");
                config
                    .set("sasl.username", kafka.username.as_deref().unwrap_or(principal))
                    .set("sasl.password", password);
            }
            KafkaSecurity::Plain => {}
        }
        Ok(Self(config))
    }

    /// Brokers that accept everybody in plain text, as those of tests do.
    pub fn plain(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "1000");
        config.set("log.connection.close", "false");
        Self(config)
    }

    pub(crate) fn config(&self) -> ClientConfig {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn kafka(security: KafkaSecurity, password_directory: Option<PathBuf>) -> Kafka {
        Kafka { brokers: "127.0.0.1:1".to_owned(), security, username: None, password_directory, ca_file: None }
    }

    #[test]
    fn a_missing_file_is_named_with_its_setting() {
        let nowhere = Path::new("/nowhere");
        let refused = |kafka: &Kafka| Brokers::new(kafka, nowhere, "order").expect_err("a file is missing").to_string();
        assert_eq!(
            refused(&kafka(KafkaSecurity::Certificate, None)),
            "SOUK_TLS_DIRECTORY: /nowhere/ca.crt is not a file"
        );
        assert!(refused(&kafka(KafkaSecurity::Scram, None)).starts_with("SOUK_KAFKA_PASSWORD_DIRECTORY: "));
        let refused = refused(&kafka(KafkaSecurity::Scram, Some(nowhere.into())));
        assert!(refused.starts_with("SOUK_KAFKA_PASSWORD_DIRECTORY: /nowhere/order.password"), "{refused}");
        Brokers::new(&kafka(KafkaSecurity::Plain, None), nowhere, "order").expect("it needs no file");
    }

    #[test]
    fn a_password_is_not_printed() {
        let folder = std::env::temp_dir().join(format!("souk-bus-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("order.password"), "hidden-and-long\n").expect("a file");
        let brokers = Brokers::new(&kafka(KafkaSecurity::Scram, Some(folder.clone())), Path::new("/"), "order");
        std::fs::remove_dir_all(folder).expect("it goes");
        let brokers = brokers.expect("the password is there");
        assert_eq!(brokers.config().get("sasl.password"), Some("hidden-and-long"));
        assert_eq!(format!("{brokers:?}"), "Brokers");
    }
}
