//! Open a customer's account. What is hashed for the idempotency key has no password in it; a retry with another password
//! gets the first response.

use chassis::Caller;
use chassis::rpc::error::on_constraint;
use chassis::rpc::idempotency::{self, Begun};
use contracts::email;
use contracts::souk::user::v1::{RegisterUserRequest, RegisterUserResponse};

use crate::account::{Account, Role, UserId};
use crate::error::Error;
use crate::mail::{self, Purpose};
use crate::password::NewPassword;
use crate::service::Service;

pub(crate) async fn register(
    service: &Service,
    caller: &Caller,
    mut request: RegisterUserRequest,
) -> Result<RegisterUserResponse, Error> {
    let password = NewPassword::parse(&std::mem::take(&mut request.password), "password")?;
    request.email = email::normalize(&request.email).map_err(|it| chassis::Error::field("email", it))?;
    let key = caller.take_key(&mut request.request_id)?.about(&request.email);
    if let Some(response) = idempotency::replay(&service.db, caller, &key, &request).await? {
        return Ok(response);
    }
    let password = password.of(&request.email, &request.display_name);
    let password_hash = service.passwords.hash_new(password, caller.deadline).await?;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let mut account = Account::new(
        UserId::new(service.clock.new_id()),
        request.email,
        request.display_name,
        Role::Customer,
        service.clock.now(),
    );
    account.language_code = Some(request.language_code).filter(|code| !code.is_empty());
    let inserted = account.insert(&mut tx, &password_hash).await;
    inserted.map_err(on_constraint("account_email", Error::EmailTaken))?;

    let mail = mail::request(service, &mut tx, account.user_id, Purpose::VerifyEmail, caller.actor()).await?;
    let response = RegisterUserResponse { user: Some(account.to_proto()) };
    tx.commit(&response).await?;
    service.published.wake();
    service.links.print(mail, Purpose::VerifyEmail);
    Ok(response)
}
