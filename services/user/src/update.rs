//! Change an account: its display name, its phone number and its language, and nothing else.

use chassis::Caller;
use chassis::rpc::Identity;
use chassis::rpc::update::{Mask, check_etag};
use contracts::email;
use contracts::souk::user::v1::{UpdateUserRequest, UpdateUserResponse};

use crate::account::{self, Account};
use crate::error::Error;
use crate::service::Service;

pub(crate) async fn update(
    service: &Service,
    caller: &Caller,
    request: UpdateUserRequest,
) -> Result<UpdateUserResponse, Error> {
    let user = request.user.unwrap_or_default();
    if user.user_id.is_empty() {
        return Err(chassis::Error::field("user.user_id", "is required").into());
    }
    let user_id = account::parse_id(&user.user_id, caller)?;
    let mask = Mask::parse(request.update_mask, &["display_name", "phone", "language_code"])?;
    let display_name = mask.pick("display_name", Some(user.display_name).filter(|name| !name.is_empty()));
    if display_name.as_deref() == Some("") {
        return Err(chassis::Error::field("user.display_name", "must have 1 to 100 characters").into());
    }
    // An empty one is absent without a mask, and removed with one.
    let optional = |text: String| Some(Some(text).filter(|text| !text.is_empty())).filter(Option::is_some);
    let phone = mask.pick("phone", optional(user.phone));
    let language_code = mask.pick("language_code", optional(user.language_code));

    let mut tx = service.db.begin().await?;
    let mut account = Account::lock(&mut tx, user_id, caller.owner()?).await?.ok_or(Error::UserNotFound)?;
    check_etag(&user.etag, account.version)?;
    let email = email::normalize(&user.email).unwrap_or(user.email);
    mask.keep("user.email", &email, &account.email)?;
    // Without a change there is no new version, so that etags stay valid.
    let display_name = display_name.filter(|name| *name != account.display_name);
    let phone = phone.filter(|phone| *phone != account.phone);
    let language_code = language_code.filter(|code| *code != account.language_code);
    let changes = display_name.is_some() || phone.is_some() || language_code.is_some();
    let by_operator = changes && matches!(caller.identity, Identity::Operator { .. });
    if changes {
        account.display_name = display_name.unwrap_or(account.display_name);
        account.phone = phone.unwrap_or(account.phone);
        account.language_code = language_code.unwrap_or(account.language_code);
        account.save(&mut tx, service.clock.now()).await?;
    }
    tx.commit().await?;
    if by_operator {
        // The log names the account, never the new name or number: those are personal data.
        tracing::info!(%user_id, version = account.version, actor = caller.actor(), "an account was changed");
    }
    Ok(UpdateUserResponse { user: Some(account.to_proto()) })
}
