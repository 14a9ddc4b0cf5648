//! Mails in a real mail server, and text messages at the simulator of their provider.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use stack::client::Client;
use stack::controlled::Stack;
use stack::mail::{Inbox, about};
use uuid::Uuid;

use crate::{Market, alone, shared, wait};

const CONFIRMED: &str = "NOTIFICATION_KIND_ORDER_CONFIRMED";

/// A market whose customer has a phone number of their own, and the language.
async fn open(stack: &Stack, language: &str) -> Result<(Market, String)> {
    let market = Market::open(stack, 10).await?;
    let phone = format!("+49{:012}", Uuid::now_v7().as_u128() % 1_000_000_000_000);
    let account = json!({"phone": phone, "languageCode": language});
    market.customer.send(Method::PATCH, "/v1/users/me", "", Some(account)).await?.ok()?;
    Ok((market, phone))
}

/// The notifications of an order: kind, channel and state, without their prefixes.
async fn notifications(customer: &Client, order: &str) -> Result<Vec<[String; 3]>> {
    let listed = customer.get("/v1/notifications?pageSize=200").await?.ok()?;
    let listed = listed["notifications"].as_array().context("a list")?.iter().filter(|it| it["orderId"] == order);
    let name =
        |it: &Value, field: &str, prefix| it[field].as_str().unwrap_or_default().trim_start_matches(prefix).to_owned();
    let mut found: Vec<_> = listed
        .map(|it| {
            [
                name(it, "kind", "NOTIFICATION_KIND_"),
                name(it, "channel", "NOTIFICATION_CHANNEL_"),
                name(it, "state", "NOTIFICATION_STATE_"),
            ]
        })
        .collect();
    found.sort();
    Ok(found)
}

async fn wait_for_notifications(customer: &Client, order: &str, expected: &[[&str; 3]]) -> Result<()> {
    wait(&format!("{expected:?}"), async || Ok(notifications(customer, order).await? == expected)).await
}

/// The mails that name an order, once one is on the page: the mail server accepts a mail before its page shows it.
async fn mails_about(stack: &Stack, order: &str) -> Result<Vec<Value>> {
    let mails = async || Ok::<_, anyhow::Error>(about(Inbox::of(stack.ports()).mails().await?, "text", order));
    wait("a mail about the order", async || Ok(!mails().await?.is_empty())).await?;
    mails().await
}

#[test]
fn a_confirmed_order_is_one_mail_and_one_text_message_in_the_language_of_the_account() -> Result<()> {
    shared(async |stack| {
        let (market, phone) = open(stack, "de").await?;
        let order = market.buy(2, "pm_card_visa").await?;
        let delivered = [["ORDER_CONFIRMED", "EMAIL", "DELIVERED"], ["ORDER_CONFIRMED", "SMS", "DELIVERED"]];
        wait_for_notifications(&market.customer, &order, &delivered).await?;
        let me = market.customer.get("/v1/users/me").await?.ok()?;
        let mails = mails_about(stack, &order).await?;
        ensure!(mails.len() == 1, "{mails:?}");
        let mail = &mails[0];
        ensure!(mail["subject"] == "Ihre Bestellung ist bestätigt", "{mail}");
        ensure!(mail["to"][0]["address"] == me["user"]["email"], "{mail}");
        let [text, html] = ["text", "html"].map(|part| mail[part].as_str().unwrap_or_default());
        ensure!(text.contains("Summe: 25,00\u{a0}€") && html.contains("2 × A thing"), "{text}\n{html}");
        let texts = about(Inbox::of(stack.ports()).texts().await?, "to", &phone);
        ensure!(texts.len() == 1 && texts[0]["body"].as_str().is_some_and(|body| body.contains(&order)), "{texts:?}");
        Ok(())
    })
}

#[test]
fn a_customer_gets_what_their_preferences_say() -> Result<()> {
    shared(async |stack| {
        let (market, _) = open(stack, "en").await?;
        let path = "/v1/notification-preferences";
        let unwanted = |channel| json!({"kind": CONFIRMED, "channel": channel, "enabled": false});
        let [email, sms] = ["NOTIFICATION_CHANNEL_EMAIL", "NOTIFICATION_CHANNEL_SMS"].map(unwanted);
        let by_accident = json!({"preferences": [email, sms]});
        let refused = market.customer.send(Method::PATCH, path, "", Some(by_accident)).await?;
        ensure!(refused.status == 400 && refused.reason() == "CONFIRMATION_REQUIRED", "{refused:?}");
        let meant = json!({"preferences": [email, sms], "endOrderMails": true});
        market.customer.send(Method::PATCH, path, "", Some(meant)).await?.ok()?;
        let listed = market.customer.get(path).await?.ok()?;
        let disabled = listed["preferences"].as_array().context("a list")?.iter().filter(|it| it["enabled"] == false);
        ensure!(disabled.count() == 2, "{listed}");

        let order = market.buy(1, "pm_card_visa").await?;
        let dropped = [["ORDER_CONFIRMED", "EMAIL", "DROPPED"], ["ORDER_CONFIRMED", "SMS", "DROPPED"]];
        wait_for_notifications(&market.customer, &order, &dropped).await?;
        market.customer.cancel(&order).await?.ok()?;
        let cancelled = [["ORDER_CANCELLED", "EMAIL", "DELIVERED"], ["ORDER_CANCELLED", "SMS", "DELIVERED"]];
        wait_for_notifications(&market.customer, &order, &[&cancelled[..], &dropped[..]].concat()).await?;
        let mails = mails_about(stack, &order).await?;
        ensure!(mails.len() == 1 && mails[0]["subject"] == "Your order is cancelled", "{mails:?}");
        Ok(())
    })
}

#[test]
fn an_operator_resends_a_mail() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 10).await?;
        let order = market.buy(1, "pm_card_visa").await?;
        let delivered = [["ORDER_CONFIRMED", "EMAIL", "DELIVERED"], ["ORDER_CONFIRMED", "SMS", "DROPPED"]];
        wait_for_notifications(&market.customer, &order, &delivered).await?;
        let listed = market.customer.get("/v1/notifications").await?.ok()?;
        let listed = listed["notifications"].as_array().context("a list")?;
        let is_mail = |it: &&Value| it["orderId"] == order.as_str() && it["channel"] == "NOTIFICATION_CHANNEL_EMAIL";
        let mail = listed.iter().find(is_mail).context("the mail is listed")?;
        let path = format!("/v1/notifications/{}:resend", mail["notificationId"].as_str().context("it has an id")?);
        let refused = market.customer.post(&path, json!({})).await?;
        ensure!(refused.status == 403, "a customer resends nothing: {refused:?}");
        market.operator.post(&path, json!({})).await?.ok()?;
        wait("the second mail", async || Ok(mails_about(stack, &order).await?.len() == 2)).await?;
        wait_for_notifications(&market.customer, &order, &delivered).await
    })
}

#[test]
fn an_address_is_verified_with_the_link_of_a_real_mail() -> Result<()> {
    shared(async |stack| {
        let customer = stack.customer().await?;
        let email = customer.get("/v1/users/me").await?.ok()?["user"]["email"].clone();
        let mail = async || {
            let mails = Inbox::of(stack.ports()).mails().await?.into_iter();
            Ok::<_, anyhow::Error>(mails.filter(|mail| mail["to"][0]["address"] == email).collect::<Vec<_>>())
        };
        wait("the mail with the link", async || Ok(mail().await?.len() == 1)).await?;
        let text = mail().await?[0]["text"].as_str().context("it has a text")?.to_owned();
        let token = text.split_once("#token=").context("it has a link")?.1.split_whitespace().next();
        customer.post("/v1/users:verifyEmail", json!({"token": token})).await?.ok()?;
        let me = customer.get("/v1/users/me").await?.ok()?;
        ensure!(me["user"]["emailVerifyTime"].is_string(), "{me}");
        Ok(())
    })
}

#[test]
fn mails_wait_for_the_mail_server_and_text_messages_do_not() -> Result<()> {
    alone(|stack| async move {
        let (market, _) = open(stack, "en").await?;
        stack.control("stop mail").await?;
        let tried = async {
            let order = market.buy(1, "pm_card_visa").await?;
            let waits = [["ORDER_CONFIRMED", "EMAIL", "PENDING"], ["ORDER_CONFIRMED", "SMS", "DELIVERED"]];
            wait_for_notifications(&market.customer, &order, &waits).await?;
            Ok(order)
        };
        let order: Result<String> = tried.await;
        stack.control("start mail").await?;
        let order = order?;
        let delivered = [["ORDER_CONFIRMED", "EMAIL", "DELIVERED"], ["ORDER_CONFIRMED", "SMS", "DELIVERED"]];
        wait_for_notifications(&market.customer, &order, &delivered).await?;
        let mails = mails_about(stack, &order).await?;
        ensure!(mails.len() == 1, "{mails:?}");
        Ok(())
    })
}
