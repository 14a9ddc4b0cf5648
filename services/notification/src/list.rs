//! The notifications of a user, newest first.

use chassis::rpc::page::Page;
use chassis::{Caller, Owner};
use contracts::souk::notification::v1::{ListNotificationsRequest, ListNotificationsResponse};
use uuid::Uuid;

use crate::error::Error;
use crate::kind::Kind;
use crate::notification::Notification;
use crate::service::Service;

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    request: ListNotificationsRequest,
) -> Result<ListNotificationsResponse, Error> {
    let user_id = Some(request.user_id).filter(|id| !id.is_empty()).and_then(|id| Uuid::parse_str(&id).ok());
    let user_id = user_id.map_or_else(|| caller.user_id(), Ok)?;
    let list = format!("notifications {user_id}");
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &list)?;
    // Somebody else's are not there.
    let notifications = sqlx::query_as!(
        Notification,
        r#"select notification_id as "notification_id: _", user_id as "user_id: _", subject_id, kind as "kind: _",
             channel as "channel: _", state as "state: _", attempts, error, created_at, delivered_at
           from notification
           where user_id = $1 and ($2::uuid is null or user_id = $2) and notification_id < $3
             and kind = any($5)
           order by notification_id desc limit $4"#,
        user_id,
        caller.owner()?.filter(),
        page.after.unwrap_or(Uuid::max()),
        page.limit(),
        &Kind::names(|_| true) as &[&str],
    );
    let mut notifications = notifications.fetch_all(&service.db).await?;
    let next_page_token = page.cut(&mut notifications, |it| it.notification_id.0);
    let is_operator = caller.owner()? == Owner::Anybody;
    let notifications = notifications.iter().map(|it| it.to_proto(is_operator)).collect();
    Ok(ListNotificationsResponse { notifications, next_page_token })
}
