use chassis::Caller;
use contracts::souk::user::v1::{GetUserRequest, GetUserResponse};

use crate::account::{self, Account};
use crate::error::Error;
use crate::service::Service;

pub(crate) async fn get(service: &Service, caller: &Caller, request: GetUserRequest) -> Result<GetUserResponse, Error> {
    let user_id = account::parse_id(&request.user_id, caller)?;
    let mut db = service.db.acquire().await?;
    let account = Account::find(&mut db, user_id, caller.owner()?).await?.ok_or(Error::UserNotFound)?;
    Ok(GetUserResponse { user: Some(account.to_proto()) })
}
