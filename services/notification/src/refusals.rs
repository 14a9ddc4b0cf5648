//! Reports addresses that mail servers refuse to the user service, which marks them. A refusal is recorded with the outcome of the
//! delivery, so that it is reported also if the user service is away at that time.

use std::sync::Arc;

use chassis::rpc::client;
use chassis::{Next, Unexpected, timestamp};
use contracts::souk::user::v1::ReportRefusedEmailRequest;
use tokio::time::Instant;
use tonic::Code;

use crate::deliver::CONTACT_TIMEOUT;
use crate::ids::NotificationId;
use crate::service::Service;

const SET: i64 = 100;

/// Reports a set of the first thousand, in no order, so that a few that fail each time hold up no others. Reports have the same effect when they are
/// repeated, so there is no lease.
pub(crate) async fn report(service: Arc<Service>) -> Result<Next, Unexpected> {
    let refusals = sqlx::query!(
        r#"select notification_id as "notification_id: NotificationId", user_id, refused_at as "refused_at!"
           from (select * from notification where refusal_unreported order by notification_id limit 1000) as first
           order by random() limit $1"#,
        SET,
    );
    let refusals = refusals.fetch_all(&service.db).await?;
    if refusals.is_empty() {
        return Ok(Next::AfterPause);
    }
    let mut reported = Vec::new();
    for refusal in &refusals {
        let request = ReportRefusedEmailRequest {
            user_id: refusal.user_id.to_string(),
            refuse_time: Some(timestamp(refusal.refused_at)),
        };
        // It may be called again, as a read may.
        let response = client::read(Instant::now() + CONTACT_TIMEOUT, request, |request| {
            let mut users = service.users.clone();
            async move { users.report_refused_email(request).await }
        });
        match response.await {
            Ok(_) => reported.push(refusal.notification_id),
            // The account was erased, and its address with it.
            Err(status) if status.code() == Code::NotFound => reported.push(refusal.notification_id),
            Err(status) => {
                let (notification_id, code) = (refusal.notification_id, status.code());
                tracing::warn!(%notification_id, ?code, "a refused address is reported to the user service later");
                if matches!(code, Code::Unavailable | Code::DeadlineExceeded) {
                    break;
                }
            }
        }
    }
    sqlx::query!(
        "update notification set refusal_unreported = false where notification_id = any($1)",
        &reported as &[NotificationId]
    )
    .execute(&service.db)
    .await?;
    // After a failure, the next set has to wait.
    Ok(Next::at_once_if(!reported.is_empty() && reported.len() == refusals.len()))
}
