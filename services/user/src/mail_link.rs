//! The link of a mail, for the service that sends it.

use chassis::timestamp;
use contracts::souk::user::v1::{GetMailLinkRequest, GetMailLinkResponse};

use crate::error::Error;
use crate::mail::{MailRequestId, Purpose};
use crate::service::Service;

pub(crate) async fn get(service: &Service, request: GetMailLinkRequest) -> Result<GetMailLinkResponse, Error> {
    let id = MailRequestId::parse(&request.mail_request_id).ok_or(Error::MailRequestNotFound)?;
    let row = sqlx::query!(
        r#"select purpose as "purpose: Purpose", token_hash, expires_at, email, display_name, language_code
           from mail_request join account using (user_id) where mail_request_id = $1 and expires_at > $2"#,
        id as MailRequestId,
        service.clock.now(),
    );
    let row = row.fetch_optional(&service.db).await?.ok_or(Error::MailRequestNotFound)?;
    let link = service.links.link(id, row.purpose, &row.token_hash).ok_or(Error::MailRequestNotFound)?;
    Ok(GetMailLinkResponse {
        purpose: row.purpose.to_proto().into(),
        email: row.email,
        display_name: row.display_name,
        link,
        expire_time: Some(timestamp(row.expires_at)),
        language_code: row.language_code.unwrap_or_default(),
    })
}
