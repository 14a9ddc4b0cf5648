//! What a later release writes, which runs beside this one during an update.

use chassis::event::Record;
use contracts::event::Event as _;
use contracts::souk::notification::v1::{GetPreferencesRequest, ListNotificationsRequest, ResendNotificationRequest};
use contracts::souk::user::v1::{MailPurpose, MailRequested, UserEvent, user_event};
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, Log, reason, record};

use super::{Fixture, confirmed, mail_requested, order_id, row};

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn kinds_of_a_later_release_are_left_to_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture
        .execute(
            "update notification set kind = 'ORDER_TELEPORTED';
             insert into unwanted (user_id, kind, channel) select user_id, kind, channel from notification",
        )
        .await;
    fixture.kit.deliver(Record { version: 9, ..confirmed(order_id(1)) }).await;
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("PENDING", 0, ""), row("DELIVERED", 1, "")]);
    let request = fixture.kit.customer(CUSTOMER, ListNotificationsRequest::default());
    let list = fixture.client.clone().list_notifications(request).await.expect("a list").into_inner();
    assert_eq!(list.notifications.len(), 1);
    fixture.execute("update notification set state = 'GIVEN_UP', due_at = null where kind = 'ORDER_TELEPORTED'").await;
    let later = "select notification_id::text from notification where kind = 'ORDER_TELEPORTED'";
    let later: String = sqlx::query_scalar(later).fetch_one(&fixture.service.db).await.expect("it is there");
    let request = fixture.kit.operator(ResendNotificationRequest { notification_id: later });
    let refused = fixture.client.clone().resend_notification(request).await.expect_err("it is not ours");
    assert_eq!(reason(&refused), "NOTIFICATION_NOT_FOUND@souk.notification");
    assert_eq!(fixture.rows().await, [row("GIVEN_UP", 0, ""), row("DELIVERED", 1, "")], "nothing has changed");
    let request = fixture.kit.customer(CUSTOMER, GetPreferencesRequest {});
    let preferences = fixture.client.clone().get_preferences(request).await.expect("preferences").into_inner();
    assert!(preferences.preferences.iter().all(|it| it.enabled));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_mail_for_an_unknown_purpose_is_skipped(db: PgPool) {
    let log = Log::keep();
    let fixture = Fixture::open(db).await;
    let mail = MailRequested { mail_request_id: order_id(1).to_string(), purpose: 99 };
    let event = user_event::Event::MailRequested(mail);
    let event_type = event.event_type();
    let event = UserEvent { user_id: CUSTOMER.to_string(), event: Some(event) };
    fixture.kit.deliver(record(event_type, CUSTOMER, 1, event.encode_to_vec())).await;
    fixture.kit.deliver(mail_requested(MailPurpose::VerifyEmail)).await;
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("DELIVERED", 1, "")], "the events of the user that follow are handled");
    assert_eq!(log.find("for an unknown purpose").len(), 1);
}
