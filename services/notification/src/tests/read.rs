use contracts::souk::notification::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, reason};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::{Fixture, confirmed, order_id};

const OTHER: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0003);

impl Fixture {
    async fn list(&self, request: Request<ListNotificationsRequest>) -> ListNotificationsResponse {
        self.client.clone().list_notifications(request).await.expect("listed").into_inner()
    }

    async fn resend(&self, notification_id: String) -> Result<Notification, Status> {
        let request = self.kit.operator(ResendNotificationRequest { notification_id });
        let response = self.client.clone().resend_notification(request).await?.into_inner();
        Ok(response.notification.expect("a notification"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn customers_see_their_own_notifications_and_operators_those_of_anybody(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for number in 1..=3 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    fixture.work().await;
    let first = ListNotificationsRequest { page_size: 2, ..Default::default() };
    let page = fixture.list(fixture.kit.customer(CUSTOMER, first.clone())).await;
    let newest = &page.notifications[0];
    assert_eq!((page.notifications.len(), newest.order_id.clone()), (2, order_id(3).to_string()));
    assert_eq!((newest.kind(), newest.channel()), (NotificationKind::OrderConfirmed, NotificationChannel::Email));
    assert_eq!((newest.state(), newest.attempts), (NotificationState::Delivered, 1));
    let next = ListNotificationsRequest { page_token: page.next_page_token, ..first };
    let last = fixture.list(fixture.kit.customer(CUSTOMER, next)).await;
    assert_eq!((last.notifications.len(), last.next_page_token), (1, String::new()));

    let of_customer = || ListNotificationsRequest { user_id: CUSTOMER.to_string(), ..Default::default() };
    assert_eq!(fixture.list(fixture.kit.customer(OTHER, of_customer())).await.notifications, []);
    assert_eq!(fixture.list(fixture.kit.operator(of_customer())).await.notifications.len(), 3);
}

/// It names settings and services.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn why_a_delivery_failed_is_for_operators(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.users.fail(Some(Code::Internal));
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work().await;
    let request = ListNotificationsRequest { user_id: CUSTOMER.to_string(), ..Default::default() };
    let theirs = fixture.list(fixture.kit.customer(CUSTOMER, request.clone())).await;
    assert_eq!((theirs.notifications[0].attempts, theirs.notifications[0].error.as_str()), (1, ""));
    let of_operator = fixture.list(fixture.kit.operator(request)).await;
    assert_eq!(of_operator.notifications[0].error, "the user service replied Internal");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_operator_resends_a_notification(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work().await;
    let mine = fixture.list(fixture.kit.customer(CUSTOMER, ListNotificationsRequest::default())).await;
    let id = mine.notifications[0].notification_id.clone();
    for _ in 0..2 {
        let pending = fixture.resend(id.clone()).await.expect("it is there");
        assert_eq!((pending.state(), pending.attempts), (NotificationState::Pending, 0));
    }
    fixture.work().await;
    assert_eq!(fixture.sink.mails().len(), 2, "it was requested twice, and resent once");
    let refused = fixture.resend(OTHER.to_string()).await.expect_err("there is none");
    assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "NOTIFICATION_NOT_FOUND@souk.notification".into()));
    let request = fixture.kit.customer(CUSTOMER, ResendNotificationRequest { notification_id: id });
    let refused = fixture.client.clone().resend_notification(request).await.expect_err("for operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
}
