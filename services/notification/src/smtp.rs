//! Sends e-mail to a mail server.

use std::path::PathBuf;
use std::time::Duration;

use chassis::boot::Prefix;
use chassis::boot::config::{first_line, parse_duration};
use clap::{Args, ValueEnum};
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, PoolConfig};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::time::timeout;

use crate::contact::Contact;
use crate::deliver::{Patience, SendError};
use crate::ids::NotificationId;
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
    /// The user for authentication. Unset: none.
    user: Option<String>,
    /// A file with the password in its first line.
    password_file: Option<PathBuf>,
    /// Whom mails are from.
    #[arg(default_value = "Souk <shop@souk.local>", value_parser = parse_mailbox)]
    sender: Mailbox,
    /// How long sending a mail may take.
    #[arg(default_value = "20s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
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
    /// Plain text, for a server on the same machine.
    Plain,
}

fn parse_mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address such as `Souk <shop@example.com>`"))
}

/// Connections that are kept, at most.
const MAX_CONNECTIONS: u32 = 32;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Replies that are about the session, and not about a mail: a command is unknown, there is no service, authentication is missing
/// or wrong. Somebody mends it, so all mails are attempted until then.
const OF_SESSION: [&str; 9] = ["500", "501", "502", "503", "504", "521", "530", "534", "535"];
/// Replies about a mailbox: it does not exist, is elsewhere, or has a malformed name.
const OF_MAILBOX: [&str; 3] = ["550", "551", "553"];
/// Of enhanced codes (RFC 3463): the mailbox or its domain does not exist, has moved, or does not accept mails.
const ADDRESS_GONE: [&str; 6] = ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"];

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
    transport: AsyncSmtpTransport<Tokio1Executor>,
    sender: Mailbox,
    timeout: Duration,
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
        let (tls, port) = match config.security {
            Security::Starttls => (Tls::Required(parameters()?), 587),
            Security::Tls => (Tls::Wrapper(parameters()?), 465),
            Security::Plain => (Tls::None, 25),
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(config.host.clone())
            .port(config.port.unwrap_or(port))
            .tls(tls)
            .timeout(Some(config.timeout))
            .hello_name(ClientId::Domain(config.sender.email.domain().to_owned()))
            .pool_config(PoolConfig::new().max_size(MAX_CONNECTIONS).idle_timeout(IDLE_FOR));
        let builder = match (&config.user, &config.password_file) {
            (None, None) => builder,
            (Some(_), None) => return Err(invalid("PASSWORD_FILE", "it is required with NOTIFICATION_SMTP_USER")),
            (None, Some(_)) => return Err(invalid("USER", "it is required with NOTIFICATION_SMTP_PASSWORD_FILE")),
            (Some(_), Some(_)) if config.security == Security::Plain => {
                return Err(invalid("SECURITY", "a password is not sent in plain text"));
            }
            (Some(user), Some(file)) => {
                let password = first_line(file).map_err(|why| invalid("PASSWORD_FILE", &why))?;
                builder.credentials(Credentials::new(user.clone(), password))
            }
        };
        Ok(Self { transport: builder.build(), sender: config.sender.clone(), timeout: config.timeout })
    }

    pub(crate) async fn send(&self, mail: Mail<'_>) -> Result<(), SendError> {
        let refused = |why: &str| SendError::Refused(why.to_owned());
        let address: Address = mail.contact.email.parse().map_err(|_| refused("the address is not one for e-mail"))?;
        let Text { subject, text, html, sms: _ } = mail.text;
        let message = Message::builder()
            .from(self.sender.clone())
            .to(Mailbox::new(Some(mail.contact.display_name.clone()), address))
            // The same in every attempt, so that a mail that is sent twice can be recognised.
            .message_id(Some(format!("<{}@{}>", mail.id, self.sender.email.domain())))
            .header(AutoSubmitted)
            .subject(subject)
            .multipart(MultiPart::alternative_plain_html(text, html))
            .map_err(|_| refused("the mail cannot be written"))?;
        match timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(SendError::Failed(Patience::ForServer, "the mail server did not reply in time".to_owned())),
        }
    }
}

fn explain(error: &Error) -> SendError {
    if let Some(code) = error.status() {
        let (code, why) = (code.to_string(), format!("the mail server replied {code}"));
        return match enhanced_code(error) {
            Some(enhanced) if ADDRESS_GONE.contains(&enhanced.as_str()) => SendError::AddressRefused(why),
            _ if code == "421" || OF_SESSION.contains(&code.as_str()) => SendError::Failed(Patience::ForServer, why),
            _ if !error.is_permanent() => SendError::Failed(Patience::ForRecipient, why),
            None if OF_MAILBOX.contains(&code.as_str()) => SendError::AddressRefused(why),
            _ => SendError::Refused(why),
        };
    }
    let failed = |why: &str| SendError::Failed(Patience::ForServer, why.to_owned());
    if error.is_timeout() {
        failed("the mail server did not reply in time")
    } else if error.is_tls() {
        failed("there is no TLS with the mail server")
    } else if error.is_client() {
        failed("the mail server does not offer what the settings require")
    } else if error.is_response() {
        failed("the mail server's reply is malformed")
    } else {
        failed("there is no connection to the mail server")
    }
}

/// The code that the text of a reply begins with, such as `5.1.1`. The rest of the text is not kept.
fn enhanced_code(error: &Error) -> Option<String> {
    let text = std::error::Error::source(error)?.to_string();
    let code = text.split_whitespace().next()?;
    let is_code = code.split('.').count() == 3 && code.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    is_code.then(|| code.to_owned())
}

#[cfg(test)]
impl Smtp {
    /// To a server on this machine.
    pub(crate) fn local(port: u16, security: Security, within: Duration) -> Self {
        let sender = parse_mailbox("Souk <shop@souk.test>").expect("an address");
        let host = "127.0.0.1".to_owned();
        let config =
            Config { host, port: Some(port), security, user: None, password_file: None, sender, timeout: within };
        Self::new(&config).expect("good settings")
    }
}
