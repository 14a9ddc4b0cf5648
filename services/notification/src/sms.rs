//! Sends text messages with a provider that speaks Twilio's Messages API.

use std::path::PathBuf;
use std::time::Duration;

use chassis::boot::Prefix;
use chassis::boot::config::{first_line, parse_duration, parse_secure_url};
use clap::Args;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::outcome::{RetryReason, SendError};

/// The provider of text messages.
#[derive(Debug, Clone, Args)]
pub(crate) struct Config {
    /// The URL of the provider, with Twilio's Messages API.
    #[arg(default_value = "https://api.twilio.com", value_parser = parse_secure_url)]
    url: String,
    /// The account (`AC...`) at the provider. Unset: there are no text messages.
    account: Option<String>,
    /// A file with the token of the account in its first line.
    token_file: Option<PathBuf>,
    /// The number that messages are from, such as +4930123456.
    sender: Option<String>,
    /// How long the provider may take to accept a message.
    #[arg(default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

impl Prefix for Config {
    const PREFIX: &'static str = "notification_sms";
}

/// Codes of refusals that another attempt would get, too: the number is invalid, in a region that is not served, has unsubscribed, or
/// is no mobile. Other refusals are about our account or settings, which somebody mends.
const REFUSALS: [u32; 5] = [21_211, 21_408, 21_610, 21_612, 21_614];

pub(crate) struct Sms {
    client: reqwest::Client,
    url: String,
    account: String,
    token: SecretString,
    sender: String,
}

/// Of an error.
#[derive(Deserialize)]
struct Problem {
    code: u32,
}

impl Sms {
    /// None, without an account.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, String> {
        let invalid = |setting: &str, why: &str| format!("NOTIFICATION_SMS_{setting}: {why}");
        let required = |setting| invalid(setting, "it is required with NOTIFICATION_SMS_ACCOUNT");
        let Some(account) = config.account.clone() else { return Ok(None) };
        if account.is_empty() || !account.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(invalid(
                "ACCOUNT",
                "it has only letters and digits, such as AC0123456789abcdef0123456789abcdef",
            ));
        }
        let token = first_line(config.token_file.as_ref().ok_or_else(|| required("TOKEN_FILE"))?);
        let token = token.map_err(|why| invalid("TOKEN_FILE", &why))?.into();
        let sender = config.sender.clone().ok_or_else(|| required("SENDER"))?;
        // A time for connecting of its own: without a connection, the message has not been sent.
        let client = reqwest::Client::builder().connect_timeout(config.timeout / 2).timeout(config.timeout);
        let client = client.redirect(Policy::none()).build();
        let client = client.map_err(|error| invalid("URL", &error.to_string()))?;
        Ok(Some(Self { client, url: config.url.trim_end_matches('/').to_owned(), account, token, sender }))
    }

    pub(crate) async fn send(&self, phone: &str, text: &str) -> Result<(), SendError> {
        let url = format!("{}/2010-04-01/Accounts/{}/Messages.json", self.url, self.account);
        let request = self.client.post(url).basic_auth(&self.account, Some(self.token.expose_secret()));
        let response = request.form(&[("To", phone), ("From", &self.sender), ("Body", text)]).send().await;
        // The text of an error may have the number, and is not kept.
        let response = response.map_err(|error| {
            if error.is_connect() || error.is_builder() {
                SendError::unavailable("the provider of text messages cannot be reached")
            } else {
                let why = "the provider of text messages did not reply to a message";
                SendError::Failed(RetryReason::OutcomeUnknown, why.to_owned())
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let code = response.json::<Problem>().await.map_or(0, |problem| problem.code);
        let why = format!("the provider of text messages replied {}, code {code}", status.as_u16());
        Err(match status {
            StatusCode::BAD_REQUEST if REFUSALS.contains(&code) => SendError::Refused(why),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => SendError::unavailable(why),
            // It may have failed after it accepted the message, and so may a proxy before it.
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                SendError::Failed(RetryReason::OutcomeUnknown, why)
            }
            // About our account or settings, which somebody mends.
            _ => SendError::Failed(RetryReason::NotAccepted, why),
        })
    }
}

#[cfg(test)]
impl Sms {
    /// A simulator on this machine.
    pub(crate) fn local(port: u16) -> Self {
        Self {
            client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client"),
            url: format!("http://127.0.0.1:{port}"),
            account: "ACtest".to_owned(),
            token: "secret".into(),
            sender: "+15005550006".to_owned(),
        }
    }
}
