//! Text messages, with the simulator of their provider.

use contracts::souk::user::v1::MailPurpose;
use serde::Deserialize;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tonic::Code;

use super::sink::Mood;
use super::{Fixture, HOUR, PHONE, confirmed, mail_requested, order_id, row};
use crate::deliver::text_messages;
use crate::sms::Sms;

#[derive(Debug, Deserialize, PartialEq)]
pub(super) struct Message {
    to: String,
    from: String,
    body: String,
}

#[derive(Deserialize)]
struct Messages {
    messages: Vec<Message>,
}

/// The port of a simulator.
pub(super) async fn simulator() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, provider::Sms::default().router()).await });
    port
}

pub(super) async fn messages(port: u16) -> Vec<Message> {
    let url = format!("http://127.0.0.1:{port}/2010-04-01/Accounts/ACtest/Messages.json");
    let response = reqwest::Client::new().get(url).basic_auth("ACtest", Some("secret")).send().await.expect("a list");
    response.json::<Messages>().await.expect("a list").messages
}

async fn fail(port: u16, query: &str) {
    let response = reqwest::Client::new().post(format!("http://127.0.0.1:{port}/_sms{query}")).send().await;
    assert!(response.expect("it is there").status().is_success());
}

impl Fixture {
    async fn open_with_sms(db: PgPool, port: u16) -> Self {
        Self::open_with(db, |service| service.sms = Some(Sms::local(port))).await
    }

    pub(super) async fn work_on_texts(&self) {
        while text_messages(self.service.clone()).await.expect("the database is there") == chassis::Next::AtOnce {}
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_is_one_text_message_beside_its_mail_and_a_link_is_none(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.kit.deliver(mail_requested(MailPurpose::VerifyEmail)).await;
    fixture.work_on_texts().await;
    assert_eq!(fixture.sink.mails(), [""; 0], "channels do not wait for each other");
    let body = format!("Souk: Your order is confirmed ({}, €25.00).", order_id(1));
    let message = Message { to: PHONE.to_owned(), from: "+15005550006".to_owned(), body };
    assert_eq!(messages(port).await, [message]);
    fixture.work().await;
    assert_eq!((fixture.sink.mails().len(), messages(port).await.len()), (2, 1));
    assert_eq!(fixture.rows().await, vec![row("DELIVERED", 1, ""); 3]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn text_messages_wait_for_their_provider_and_mails_do_not(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    fail(port, "?status=503").await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work_on_texts().await;
    fixture.work().await;
    let waiting = row("PENDING", 1, "the provider of text messages replied 503, code 20500");
    assert_eq!(fixture.rows().await, [row("DELIVERED", 1, ""), waiting]);
    fail(port, "").await;
    fixture.advance(HOUR);
    fixture.work_on_texts().await;
    assert_eq!(fixture.rows().await, [row("DELIVERED", 1, ""), row("DELIVERED", 2, "")]);
    assert_eq!(messages(port).await.len(), 1);
}

/// Another provider may reply so.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_text_message_that_was_accepted_with_another_status_is_delivered(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    fail(port, "?status=202").await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work_on_texts().await;
    assert_eq!(fixture.rows().await[1], row("DELIVERED", 1, ""));
}

/// Most users have none, and an outage must not last until it is the turn of one who has.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_probe_of_a_user_without_a_phone_number_is_followed_by_others(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    fixture.users.fail(Some(Code::Unavailable));
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work_on_texts().await;
    for number in 2..=20 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    fixture.users.fail(None);
    fixture.users.set_phone("");
    fixture.advance(HOUR / 60);
    fixture.work_on_texts().await;
    let dropped = fixture.rows().await.iter().filter(|(state, ..)| state == "DROPPED").count();
    assert_eq!(dropped, 20);
}

/// The provider, or a proxy before it, may have failed after it accepted the message.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_text_message_that_may_have_been_accepted_is_sent_three_times_at_most(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    fail(port, "?status=502").await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    for _ in 0..10 {
        fixture.work_on_texts().await;
        fixture.advance(HOUR);
    }
    let given_up = row("GIVEN_UP", 3, "the provider of text messages replied 502, code 20500");
    assert_eq!(fixture.rows().await[1], given_up);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_mail_server_that_is_away_delays_no_text_message(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    fixture.sink.set(Mood::IsAway);
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work().await;
    fixture.work_on_texts().await;
    assert_eq!(messages(port).await.len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_number_that_is_refused_is_not_tried_again_and_without_one_there_is_no_message(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with_sms(db, port).await;
    for (phone, expected) in [
        ("+15005550009", row("REFUSED", 1, "the provider of text messages replied 400, code 21614")),
        ("+15005550004", row("REFUSED", 1, "the provider of text messages replied 400, code 21610")),
        ("", row("DROPPED", 1, "the user has no phone number")),
    ] {
        sqlx::query!("delete from notification").execute(&fixture.service.db).await.expect("deleted");
        sqlx::query!("delete from inbox").execute(&fixture.service.db).await.expect("deleted");
        fixture.users.set_phone(phone);
        fixture.kit.deliver(confirmed(order_id(1))).await;
        fixture.work_on_texts().await;
        fixture.advance(HOUR);
        fixture.work_on_texts().await;
        assert_eq!(fixture.rows().await[1], expected, "{phone}");
    }
    assert_eq!(messages(port).await, []);
}
