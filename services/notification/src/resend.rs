//! Delivers a notification again, at an operator's request. It stays one notification.

use chassis::Caller;
use contracts::souk::notification::v1::{ResendNotificationRequest, ResendNotificationResponse};

use crate::error::Error;
use crate::ids::NotificationId;
use crate::kind::Kind;
use crate::notification::Notification;
use crate::service::Service;

pub(crate) async fn resend(
    service: &Service,
    caller: &Caller,
    request: ResendNotificationRequest,
) -> Result<ResendNotificationResponse, Error> {
    let id = NotificationId::parse(&request.notification_id).ok_or(Error::NotificationNotFound)?;
    let (now, kinds) = (service.clock.now(), Kind::names(|_| true));
    let wanted = sqlx::query!(
        "update notification set state = 'PENDING', due_at = $2, wanted_at = $2, attempts = 0,
           unknown_outcomes = 0, error = ''
         where notification_id = $1 and state <> 'PENDING' and kind = any($3)",
        id as NotificationId,
        now,
        &kinds as &[&str],
    );
    if wanted.execute(&service.db).await?.rows_affected() > 0 {
        tracing::info!(notification_id = %id, operator = %caller.user_id()?, "an operator resends a notification");
        service.emails.wake();
        service.text_messages.wake();
    }
    let notification = sqlx::query_as!(
        Notification,
        r#"select notification_id as "notification_id: _", user_id as "user_id: _", subject_id, kind as "kind: _",
             channel as "channel: _", state as "state: _", attempts, error, created_at, delivered_at
           from notification where notification_id = $1 and kind = any($2)"#,
        id as NotificationId,
        &kinds as &[&str],
    );
    let notification = notification.fetch_optional(&service.db).await?.ok_or(Error::NotificationNotFound)?;
    Ok(ResendNotificationResponse { notification: Some(notification.to_proto(true)) })
}
