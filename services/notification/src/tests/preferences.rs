use contracts::event::Event as _;
use contracts::souk::notification::v1::*;
use contracts::souk::user::v1::{MailPurpose, UserErased, UserEvent, user_event};
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason, record};
use tonic::{Code, Status};

use super::{Fixture, HOUR, confirmed, mail_requested, order_id, row};
use crate::preferences::erase_latecomers;

impl Fixture {
    /// The preference of mails about confirmed orders.
    async fn wants_mails(&self) -> bool {
        let request = self.kit.customer(CUSTOMER, GetPreferencesRequest {});
        let all = self.client.clone().get_preferences(request).await.expect("preferences").into_inner().preferences;
        assert_eq!(all.len(), 14, "eight kinds by e-mail, six by text messages");
        let is_wanted = |it: &&Preference| it.kind() == NotificationKind::OrderConfirmed && it.channel == 1;
        all.iter().find(is_wanted).expect("it is there").enabled
    }

    async fn unwanted(&self) -> i64 {
        let count = sqlx::query_scalar!(r#"select count(*) as "n!" from unwanted"#).fetch_one(&self.service.db).await;
        count.expect("counted")
    }

    async fn prefer(
        &self,
        kind: NotificationKind,
        channel: NotificationChannel,
        enabled: bool,
        end_order_mails: bool,
    ) -> Result<(), Status> {
        let preferences = vec![Preference { kind: kind.into(), channel: channel.into(), enabled }];
        let request = self.kit.customer(CUSTOMER, UpdatePreferencesRequest { preferences, end_order_mails });
        self.client.clone().update_preferences(request).await.map(drop)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn mails_about_orders_end_only_when_it_is_meant(db: PgPool) {
    let (confirmation, email) = (NotificationKind::OrderConfirmed, NotificationChannel::Email);
    let fixture = Fixture::open(db).await;
    assert!(fixture.wants_mails().await);
    let refused = fixture.prefer(confirmation, email, false, false).await.expect_err("perhaps by accident");
    assert_eq!(reason(&refused), "CONFIRMATION_REQUIRED@souk.notification");
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["end_order_mails".to_owned()]));
    assert!(fixture.wants_mails().await);
    fixture.prefer(confirmation, email, false, true).await.expect("it is meant");
    assert!(!fixture.wants_mails().await);
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.kit.deliver(mail_requested(MailPurpose::ResetPassword)).await;
    fixture.work().await;
    let mut rows = fixture.rows().await;
    rows.sort();
    assert_eq!(rows, [row("DELIVERED", 1, ""), row("DROPPED", 1, "the user does not want it")]);
    fixture.prefer(confirmation, email, true, false).await.expect("again");
    assert!(fixture.wants_mails().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn everybody_gets_links_and_none_by_text_message(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (kind, channel) in [
        (NotificationKind::ResetPassword, NotificationChannel::Email),
        (NotificationKind::VerifyEmail, NotificationChannel::Sms),
    ] {
        let refused = fixture.prefer(kind, channel, false, true).await.expect_err("fixed");
        assert_eq!(reason(&refused), "PREFERENCE_FIXED@souk.notification");
        assert_eq!(fields(&refused), ["preferences[0]"]);
    }
    let unknown = fixture.prefer(NotificationKind::Unspecified, NotificationChannel::Email, true, true).await;
    assert_eq!(fields(&unknown.expect_err("no kind")), ["preferences[0].kind"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_preferences_of_an_erased_user_go(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.prefer(NotificationKind::OrderConfirmed, NotificationChannel::Sms, false, false).await.expect("no texts");
    let event = user_event::Event::UserErased(UserErased {});
    let event_type = event.event_type();
    let event = UserEvent { user_id: CUSTOMER.to_string(), event: Some(event) };
    fixture.kit.deliver(record(event_type, CUSTOMER, 7, event.encode_to_vec())).await;
    assert_eq!(fixture.unwanted().await, 0);
    // A token is valid for some minutes yet.
    fixture.prefer(NotificationKind::OrderConfirmed, NotificationChannel::Sms, false, false).await.expect("no texts");
    assert_eq!(fixture.unwanted().await, 1);
    erase_latecomers(fixture.service.clone()).await.expect("erased");
    assert_eq!(fixture.unwanted().await, 0);
    fixture.advance(HOUR * 2);
    erase_latecomers(fixture.service.clone()).await.expect("erased");
    let users = sqlx::query_scalar!(r#"select count(*) as "n!" from erased_user"#).fetch_one(&fixture.service.db).await;
    assert_eq!(users.expect("counted"), 0, "nor is it remembered who was erased");
}
