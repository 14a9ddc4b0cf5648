mod deliver;
mod faults;
mod limits;
mod outcomes;
mod preferences;
mod read;
mod releases;
mod sink;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::event::Record;
use contracts::event::Event as _;
use contracts::souk::notification::v1::notification_service_client::NotificationServiceClient;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderConfirmed, OrderEvent, OrderLine};
use contracts::souk::r#type::v1::Money;
use contracts::souk::user::v1::{GetContactResponse, MailPurpose, MailRequested, UserEvent, user_event};
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, Kit, Users, record, serve_users};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::availability::Availability;
use crate::deliver::emails;
use crate::locale::Language;
use crate::numbers::Numbers;
use crate::service::{Service, role};
use crate::smtp::{Security, Smtp};
use crate::templates::Templates;
use sink::Sink;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const PHONE: &str = "+4930123456";
pub(super) const EMAIL: &str = "ada@example.com";
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// The notification service, a user service and a mail server.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) client: NotificationServiceClient<Channel>,
    pub(super) users: Users,
    pub(super) sink: Sink,
}

impl Fixture {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, |_| {}).await
    }

    /// `change` says what is different about the service.
    pub(super) async fn open_with(db: PgPool, change: impl FnOnce(&mut Service)) -> Self {
        let (mut kit, sink) = (Kit::new(), Sink::open().await);
        let contact = GetContactResponse {
            email: EMAIL.to_owned(),
            display_name: "Ada <Lovelace>".to_owned(),
            phone: PHONE.to_owned(),
            ..Default::default()
        };
        let (users, peer) = serve_users(roster::NOTIFICATION, contact).await;
        let mut service = Service {
            db,
            clock: kit.context.clock.clone(),
            users: peer,
            templates: Templates::new("Souk"),
            smtp: Smtp::local(sink.port, Security::Plain, Duration::from_secs(10)),
            sms: None,
            language: Language::En,
            lease: LEASE,
            give_up_after: HOUR * 24,
            per_hour: Some(60),
            time_zone: "UTC".parse().expect("a time zone"),
            numbers: Numbers::default(),
            mail_server: Availability::default(),
            sms_provider: Availability::default(),
            emails: Wake::default(),
            text_messages: Wake::default(),
            refusals: Wake::default(),
        };
        change(&mut service);
        let service = Arc::new(service);
        let client = NotificationServiceClient::new(kit.serve(role(&service, 1, &kit.context)).await);
        Self { kit, service, client, users, sink }
    }

    /// Delivers until nothing is due.
    pub(super) async fn work(&self) {
        while emails(self.service.clone()).await.expect("the database is there") == chassis::Next::AtOnce {}
    }

    /// As if nothing had happened, a minute later.
    pub(super) async fn forget(&self) {
        self.execute("delete from notification").await;
        self.execute("delete from inbox").await;
        self.advance(HOUR / 60);
    }

    pub(super) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.service.db).await.expect("executed");
    }

    pub(super) fn advance(&self, by: Duration) {
        self.service.clock.advance(by);
    }

    /// State, attempts and error of all notifications, in the order in which they were caused.
    pub(super) async fn rows(&self) -> Vec<(String, i32, String)> {
        let rows = sqlx::query!("select state, attempts, error from notification order by notification_id");
        let rows = rows.fetch_all(&self.service.db).await.expect("rows");
        rows.into_iter().map(|row| (row.state, row.attempts, row.error)).collect()
    }
}

pub(super) fn row(state: &str, attempts: i32, error: &str) -> (String, i32, String) {
    (state.to_owned(), attempts, error.to_owned())
}

pub(super) fn order_id(number: u128) -> Uuid {
    Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0001_0000 + number)
}

pub(super) fn confirmed(order_id: Uuid) -> Record {
    let unit_price = Some(Money::new("EUR", 1_250));
    let line = OrderLine { title: "Tea & <sugar>".to_owned(), quantity: 2, unit_price, ..Default::default() };
    let payment_id = Uuid::nil().to_string();
    testkit::order_event(order_id, 3, Event::OrderConfirmed(OrderConfirmed { lines: vec![line], payment_id }))
}

/// The same event of another user's order.
pub(super) fn of_user(user_id: Uuid, event: Record) -> Record {
    let order = OrderEvent::decode(&*event.payload).expect("an event of an order");
    let order = OrderEvent { user_id: user_id.to_string(), ..order };
    Record { payload: order.encode_to_vec(), ..event }
}

/// A request of the user service for a mail.
pub(super) fn mail_requested(purpose: MailPurpose) -> Record {
    let mail = MailRequested { mail_request_id: order_id(purpose as u128).to_string(), purpose: purpose.into() };
    let event = user_event::Event::MailRequested(mail);
    let (event_type, version) = (event.event_type(), purpose as i64);
    let event = UserEvent { user_id: CUSTOMER.to_string(), event: Some(event) };
    record(event_type, CUSTOMER, version, event.encode_to_vec())
}
