//! Sends e-mail to a mail server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use chassis::boot::Prefix;
use chassis::boot::config::{first_line, parse_duration};
use clap::{Args, ValueEnum};
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message};

use crate::contact::Contact;
use crate::ids::NotificationId;
use crate::mail_server::{MailServer, Secure};
use crate::outcome::SendError;
use crate::templates::Text;

/// The mail server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Config {
    /// The host of the mail server that accepts mails for delivery.
    #[arg(default_value = "127.0.0.1")]
    host: String,
    /// Its port. Unset: 587 with STARTTLS, 465 with TLS, 25 without.
    port: Option<u16>,
    /// How the connection is secured. The server's certificate must be that of its host, from an authority of the system or of
    /// SSL_CERT_FILE.
    #[arg(default_value = "starttls")]
    security: Security,
    /// Whether mails may be sent in plain text to another machine. Machines between the two can read the links in them.
    #[arg(default_value_t = false, action = clap::ArgAction::Set)]
    allow_plain: bool,
    /// The user for authentication. Unset: none.
    user: Option<String>,
    /// A file with the password in its first line.
    password_file: Option<PathBuf>,
    /// Whom mails are from.
    #[arg(default_value = "Souk <shop@souk.local>", value_parser = parse_mailbox)]
    sender: Mailbox,
    /// How long it may take until the mail server wants the content of a mail: connecting, and all commands before.
    #[arg(default_value = "20s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// How long the mail server may take to accept a mail whose content it has: it may examine it first. A mail whose server has not
    /// replied by then is sent again, twice at most.
    #[arg(default_value = "2m", value_parser = parse_duration)]
    pub(crate) accept_timeout: Duration,
}

impl Prefix for Config {
    const PREFIX: &'static str = "notification_smtp";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Security {
    /// STARTTLS, without which nothing is sent.
    Starttls,
    /// TLS from the beginning.
    Tls,
    /// Plain text, for a server on the same machine, or with NOTIFICATION_SMTP_ALLOW_PLAIN.
    Plain,
}

fn parse_mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address such as `Souk <shop@example.com>`"))
}

/// So that nobody's absence is answered (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

pub(crate) struct Smtp {
    server: MailServer,
    sender: Mailbox,
}

/// One mail.
pub(crate) struct Mail<'a> {
    pub(crate) id: NotificationId,
    pub(crate) contact: &'a Contact,
    pub(crate) text: Text,
}

impl Smtp {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let invalid = |setting: &str, why: &str| format!("NOTIFICATION_SMTP_{setting}: {why}");
        let parameters =
            || TlsParameters::new(config.host.clone()).map_err(|error| invalid("HOST", &error.to_string()));
        let (security, port) = match config.security {
            Security::Starttls => (Secure::Starttls(parameters()?), 587),
            Security::Tls => (Secure::Tls(parameters()?), 465),
            Security::Plain if config.allow_plain || is_loopback(&config.host) => (Secure::Plain, 25),
            Security::Plain => {
                return Err(invalid(
                    "SECURITY",
                    "mails would leave this machine in plain text: NOTIFICATION_SMTP_ALLOW_PLAIN",
                ));
            }
        };
        let credentials = match (&config.user, &config.password_file) {
            (None, None) => None,
            (Some(_), None) => return Err(invalid("PASSWORD_FILE", "it is required with NOTIFICATION_SMTP_USER")),
            (None, Some(_)) => return Err(invalid("USER", "it is required with NOTIFICATION_SMTP_PASSWORD_FILE")),
            (Some(_), Some(_)) if config.security == Security::Plain => {
                return Err(invalid("SECURITY", "a password is not sent in plain text"));
            }
            (Some(user), Some(file)) => {
                let password = first_line(file).map_err(|why| invalid("PASSWORD_FILE", &why))?;
                Some(Credentials::new(user.clone(), password))
            }
        };
        let server = MailServer {
            address: (config.host.clone(), config.port.unwrap_or(port)),
            security,
            hello: ClientId::Domain(config.sender.email.domain().to_owned()),
            credentials,
            timeout: config.timeout,
            accept_timeout: config.accept_timeout,
            idle: Mutex::default(),
        };
        Ok(Self { server, sender: config.sender.clone() })
    }

    pub(crate) async fn send(&self, mail: Mail<'_>) -> Result<(), SendError> {
        let refused = |why: &str| SendError::Refused(why.to_owned());
        let address: Address = mail.contact.email.parse().map_err(|_| refused("the address is not one for e-mail"))?;
        let Text { subject, text, html, sms: _ } = mail.text;
        let message = Message::builder()
            .from(self.sender.clone())
            .to(Mailbox::new(mail.contact.display_name.clone(), address))
            // The same in every attempt, so that a mail that is sent twice can be recognised.
            .message_id(Some(format!("<{}@{}>", mail.id, self.sender.email.domain())))
            .header(AutoSubmitted)
            .subject(subject)
            .multipart(MultiPart::alternative_plain_html(text, html))
            .map_err(|_| refused("the mail cannot be written"))?;
        self.server.send(&message).await
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
impl Smtp {
    /// To a server on this machine.
    pub(crate) fn local(port: u16, security: Security, within: Duration) -> Self {
        let config =
            Config { port: Some(port), security, timeout: within, accept_timeout: within, ..Config::of_test() };
        Self::new(&config).expect("good settings")
    }

    pub(crate) fn plain(host: &str, allow_plain: bool) -> Result<(), String> {
        Self::new(&Config { host: host.to_owned(), allow_plain, ..Config::of_test() }).map(drop)
    }

    pub(crate) fn accepting_within(mut self, within: Duration) -> Self {
        self.server.accept_timeout = within;
        self
    }
}

#[cfg(test)]
impl Config {
    fn of_test() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: None,
            security: Security::Plain,
            allow_plain: false,
            user: None,
            password_file: None,
            sender: parse_mailbox("Souk <shop@souk.test>").expect("an address"),
            timeout: Duration::from_secs(10),
            accept_timeout: Duration::from_secs(10),
        }
    }
}
