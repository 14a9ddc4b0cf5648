//! The conversation with the mail server, command by command: what a reply means depends on the command that it answers. A refusal of
//! us, as a client or as a sender, is for all mails; one of the recipient is about the address; one of the content is about neither.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use tokio::time::timeout;

use crate::outcome::{RetryReason, SendError};

/// Connections that are kept, at most, and for how long without a mail.
const MAX_IDLE: usize = 32;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Replies that are about the session, whatever they answer: a command is unknown, there is no service, authentication is missing or
/// wrong. Somebody mends it, so all mails are attempted until then.
const OF_SESSION: [&str; 10] = ["421", "500", "501", "502", "503", "504", "521", "530", "534", "535"];
/// A reply about the argument of a command: to the recipient, that the address is malformed.
const OF_ARGUMENT: &str = "501";
/// Of enhanced codes (RFC 3463): the mailbox or its domain does not exist, has moved, or does not accept mails. Only these say for sure
/// that a refusal is about the address: with the same 550, servers refuse to relay for us.
const ADDRESS_GONE: [&str; 6] = ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"];
/// Of enhanced codes: the sender, or a policy, which may be about us. Most servers judge both only when they know the recipient.
const OF_SENDER: [&str; 2] = ["5.1.7", "5.1.8"];
const OF_POLICY: &str = "5.7.";
/// The same without an enhanced code.
const OF_TRANSACTION: &str = "554";
/// How many mails a connection carries: servers limit them.
const MAX_MAILS: u32 = 20;
/// How long a kept connection may take to answer whether it still works.
const TEST_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) enum Secure {
    Starttls(TlsParameters),
    Tls(TlsParameters),
    Plain,
}

pub(crate) struct MailServer {
    pub(crate) address: (String, u16),
    pub(crate) security: Secure,
    pub(crate) hello: ClientId,
    pub(crate) credentials: Option<Credentials>,
    /// For all before the content.
    pub(crate) timeout: Duration,
    /// For the content, until it is accepted.
    pub(crate) accept_timeout: Duration,
    /// Connections that wait for a mail.
    pub(crate) idle: Mutex<Vec<Idle>>,
}

/// A connection that waits for a mail.
pub(crate) struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
    /// How many mails it has carried.
    mails: u32,
}

/// What a reply is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// The greeting, the commands before a mail, and its sender.
    Session,
    Recipient,
    Content,
}

impl MailServer {
    pub(crate) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let content = message.formatted();
        let begun = timeout(self.timeout, self.begin(message, &content)).await;
        let begun = begun.unwrap_or_else(|_| Err(SendError::unavailable("the mail server did not reply in time")));
        let (mut connection, mails) = begun?;
        match timeout(self.accept_timeout, connection.message(&content)).await {
            Ok(Ok(_)) => {
                self.keep(connection, mails + 1);
                Ok(())
            }
            Ok(Err(error)) if error.status().is_some() => Err(explain(About::Content, &error)),
            Ok(Err(_)) | Err(_) => {
                let why = "the mail server did not reply to a mail that was handed over";
                Err(SendError::Failed(RetryReason::OutcomeUnknown, why.to_owned()))
            }
        }
    }

    /// All before the content. Returns the connection, and how many mails it has carried.
    async fn begin(&self, message: &Message, content: &[u8]) -> Result<(AsyncSmtpConnection, u32), SendError> {
        let of_session = |error| explain(About::Session, &error);
        if let Some((mut connection, mails)) = self.kept().await
            && self.name_sender(&mut connection, message, content).await.is_ok()
        {
            return self.name_recipient(connection, mails, message).await;
        }
        // What fails on a kept connection, such as a limit of mails, says nothing of the server.
        let mut connection = self.connect().await.map_err(of_session)?;
        self.name_sender(&mut connection, message, content).await?;
        self.name_recipient(connection, 0, message).await
    }

    /// Names the sender.
    async fn name_sender(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &Message,
        content: &[u8],
    ) -> Result<(), SendError> {
        let envelope = message.envelope();
        let supports = |extension| connection.server_info().supports_feature(extension);
        let mut parameters = Vec::new();
        if envelope.to().iter().any(|address| !address.to_string().is_ascii()) {
            if !supports(Extension::SmtpUtfEight) {
                return Err(SendError::Refused("the mail server takes only addresses of ASCII".to_owned()));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !content.is_ascii() && supports(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let sender = Mail::new(envelope.from().cloned(), parameters);
        connection.command(sender).await.map(drop).map_err(|error| explain(About::Session, &error))
    }

    /// Names the recipient, and announces the content.
    async fn name_recipient(
        &self,
        mut connection: AsyncSmtpConnection,
        mails: u32,
        message: &Message,
    ) -> Result<(AsyncSmtpConnection, u32), SendError> {
        for address in message.envelope().to() {
            let accepted = connection.command(Rcpt::new(address.clone(), vec![])).await;
            accepted.map_err(|error| explain(About::Recipient, &error))?;
        }
        connection.command(Data).await.map_err(|error| explain(About::Content, &error))?;
        Ok((connection, mails))
    }

    /// One that waits for a mail and works, and how many mails it has carried.
    async fn kept(&self) -> Option<(AsyncSmtpConnection, u32)> {
        let Idle { mut connection, mails, .. } = self.idle()?;
        timeout(TEST_TIMEOUT, connection.test_connected()).await.unwrap_or(false).then_some((connection, mails))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let (tls, starttls) = match &self.security {
            Secure::Starttls(parameters) => (None, Some(parameters)),
            Secure::Tls(parameters) => (Some(parameters.clone()), None),
            Secure::Plain => (None, None),
        };
        let address = (self.address.0.as_str(), self.address.1);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &self.hello, tls, None).await?;
        if let Some(parameters) = starttls {
            connection.starttls(parameters.clone(), &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    fn idle(&self) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|it| it.since.elapsed() < IDLE_FOR);
        idle.pop()
    }

    fn keep(&self, connection: AsyncSmtpConnection, mails: u32) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && mails < MAX_MAILS {
            idle.push(Idle { connection, since: Instant::now(), mails });
        }
    }
}

fn explain(about: About, error: &Error) -> SendError {
    let Some(code) = error.status() else {
        let why = without_reply(error);
        return match about {
            About::Session => SendError::unavailable(why),
            // Perhaps because of this mail: if it is because of the server, the next one has no connection.
            About::Recipient | About::Content => SendError::Failed(RetryReason::NotAccepted, why.to_owned()),
        };
    };
    let (code, why) = (code.to_string(), format!("the mail server replied {code}"));
    let enhanced = enhanced_code(error).unwrap_or_default();
    let is_of_session = about == About::Session || OF_SESSION.contains(&code.as_str());
    let is_of_us = OF_SENDER.contains(&enhanced.as_str())
        || enhanced.starts_with(OF_POLICY)
        || enhanced.is_empty() && code == OF_TRANSACTION;
    // Some servers judge how we introduced ourselves only when they know the recipient (5.5.2).
    let is_of_argument = enhanced.is_empty() || enhanced.starts_with("5.1.") && !is_of_us;
    match about {
        About::Recipient if error.is_permanent() && ADDRESS_GONE.contains(&enhanced.as_str()) => {
            SendError::AddressRefused(why)
        }
        About::Recipient if code == OF_ARGUMENT && is_of_argument => SendError::Refused(why),
        _ if is_of_session => SendError::unavailable(why),
        _ if !error.is_permanent() => SendError::Failed(RetryReason::NotAccepted, why),
        About::Recipient if is_of_us => SendError::Failed(RetryReason::NotAccepted, why),
        _ => SendError::Refused(why),
    }
}

fn without_reply(error: &Error) -> &'static str {
    if error.is_timeout() {
        "the mail server did not reply in time"
    } else if error.is_tls() {
        "there is no TLS with the mail server"
    } else if error.is_client() {
        "the mail server does not offer what the settings require"
    } else if error.is_response() {
        "the mail server's reply is malformed"
    } else {
        "there is no connection to the mail server"
    }
}

/// The code that the text of a reply begins with, such as `5.1.1`. The rest of the text is not kept.
fn enhanced_code(error: &Error) -> Option<String> {
    let text = std::error::Error::source(error)?.to_string();
    let code = text.split_whitespace().next()?;
    let is_code = code.split('.').count() == 3 && code.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    is_code.then(|| code.to_owned())
}
