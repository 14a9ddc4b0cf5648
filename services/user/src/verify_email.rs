//! Verify an e-mail address by a link in a mail, which its registration requests.

use chassis::Owner;
use contracts::souk::user::v1::{VerifyEmailRequest, VerifyEmailResponse};

use crate::account::Account;
use crate::error::Error;
use crate::mail::{self, Purpose};
use crate::service::Service;

pub(crate) async fn verify(service: &Service, request: VerifyEmailRequest) -> Result<VerifyEmailResponse, Error> {
    let (purpose, now) = (Purpose::VerifyEmail, service.clock.now());
    let mut tx = service.db.begin().await?;
    let user_id = mail::find(&mut tx, &request.token, purpose, now).await?.ok_or(Error::MailTokenInvalid)?;
    let account = Account::lock(&mut tx, user_id, Owner::Anybody).await?;
    let mut account = account.ok_or(Error::MailTokenInvalid)?;
    if !mail::consume(&mut tx, user_id, &request.token, purpose, now).await? {
        return Err(Error::MailTokenInvalid);
    }
    account.verify(&mut tx, now).await?;
    tx.commit().await?;
    Ok(VerifyEmailResponse {})
}
