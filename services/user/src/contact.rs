//! How to reach a user, for the service that notifies them, and what it found out about the address.

use chassis::Owner;
use contracts::souk::user::v1::{
    GetContactRequest, GetContactResponse, ReportRefusedEmailRequest, ReportRefusedEmailResponse,
};
use time::OffsetDateTime;

use crate::account::{Account, UserId};
use crate::error::Error;
use crate::service::Service;

pub(crate) async fn get(service: &Service, request: GetContactRequest) -> Result<GetContactResponse, Error> {
    let user_id = UserId::parse(&request.user_id).ok_or(Error::UserNotFound)?;
    let row = sqlx::query!(
        r#"select email, case when verified_at is null then '' else display_name end as "display_name!", phone, language_code,
             email_refused_at is not null as "is_refused!"
           from account where user_id = $1"#,
        user_id as UserId,
    );
    let row = row.fetch_optional(&service.db).await?.ok_or(Error::UserNotFound)?;
    Ok(GetContactResponse {
        email: row.email,
        display_name: row.display_name,
        phone: row.phone.unwrap_or_default(),
        language_code: row.language_code.unwrap_or_default(),
        email_refused: row.is_refused,
    })
}

/// A report is about the mails before the address was verified, or about those since: only the latter say something of it now.
pub(crate) async fn report_refused(
    service: &Service,
    request: ReportRefusedEmailRequest,
) -> Result<ReportRefusedEmailResponse, Error> {
    let user_id = UserId::parse(&request.user_id).ok_or(Error::UserNotFound)?;
    let refused_at = request.refuse_time.map(|it| OffsetDateTime::from_unix_timestamp(it.seconds));
    let refused_at =
        refused_at.and_then(Result::ok).ok_or_else(|| chassis::Error::field("refuse_time", "is required"))?;
    let mut tx = service.db.begin().await?;
    let mut account = Account::lock(&mut tx, user_id, Owner::Anybody).await?.ok_or(Error::UserNotFound)?;
    let is_of_now = account.verified_at.is_none_or(|verified_at| verified_at < refused_at);
    if account.email_refused_at.is_none() && is_of_now {
        account.email_refused_at = Some(refused_at);
        account.save(&mut tx, service.clock.now()).await?;
        tx.commit().await?;
        tracing::info!(%user_id, "the e-mail address of an account is refused by its mail server");
    }
    Ok(ReportRefusedEmailResponse {})
}
