//! What the mail server and the provider of text messages have received.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::layout::Ports;

const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where messages are listed.
pub struct Inbox {
    /// The page of the mail server.
    pub mail_page: String,
    /// The provider of text messages, if there is one.
    pub sms: Option<String>,
}

impl Inbox {
    pub fn of(ports: Ports) -> Self {
        let [mail_page, sms] = [ports.mail_page(), ports.sms()].map(|port| format!("http://127.0.0.1:{port}"));
        Self { mail_page, sms: Some(sms) }
    }

    /// All mails that the server still has.
    pub async fn mails(&self) -> Result<Vec<Value>> {
        list(&format!("{}/api/email", self.mail_page)).await
    }

    /// The last text messages, the newest first.
    pub async fn texts(&self) -> Result<Vec<Value>> {
        let Some(url) = &self.sms else { return Ok(vec![]) };
        list(&format!("{url}/2010-04-01/Accounts/ACsouk/Messages.json")).await
    }

    /// Waits for the mail and the text message about an order, and prints them.
    pub(crate) async fn show(&self, order_id: &str) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mail = arrived("mail", order_id, || async { Ok(about(self.mails().await?, "text", order_id)) }).await?;
        println!("a mail arrived for {}: {}", text(&mail["to"][0]["address"]), text(&mail["subject"]));
        text(&mail["text"]).lines().for_each(|line| println!("  {line}"));
        if self.sms.is_some() {
            let texts = || async { Ok(about(self.texts().await?, "body", order_id)) };
            let sms = arrived("text message", order_id, texts).await?;
            println!("a text message arrived for {}: {}", text(&sms["to"]), text(&sms["body"]));
        }
        Ok(())
    }
}

/// Those whose field has the text.
pub fn about(messages: Vec<Value>, field: &str, text: &str) -> Vec<Value> {
    let has = |message: &Value| message[field].as_str().is_some_and(|it| it.contains(text));
    messages.into_iter().filter(has).collect()
}

async fn arrived<F: Future<Output = Result<Vec<Value>>>>(
    what: &str,
    order_id: &str,
    list: impl Fn() -> F,
) -> Result<Value> {
    let begun = Instant::now();
    loop {
        if let Some(message) = list().await?.pop() {
            return Ok(message);
        }
        if begun.elapsed() > ARRIVES_WITHIN {
            bail!("no {what} about order {order_id} arrived within {ARRIVES_WITHIN:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn list(url: &str) -> Result<Vec<Value>> {
    let response = reqwest::Client::new().get(url).basic_auth("ACsouk", Some("any")).send().await?;
    let list: Value = serde_json::from_str(&response.error_for_status()?.text().await?)
        .with_context(|| format!("{url} is not a list of messages"))?;
    let messages = list.as_array().or_else(|| list["messages"].as_array()).context("it has a list")?;
    Ok(messages.clone())
}
