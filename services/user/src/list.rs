//! The accounts, newest first, for operators.

use chassis::rpc::page::Page;
use contracts::souk::user::v1::{ListUsersRequest, ListUsersResponse, Role};
use uuid::Uuid;

use crate::account::Account;
use crate::error::Error;
use crate::service::Service;

pub(crate) async fn list(service: &Service, request: ListUsersRequest) -> Result<ListUsersResponse, Error> {
    let (role, disabled) = (request.role(), request.disabled);
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("users {role:?} {disabled}"))?;
    let role = (role != Role::Unspecified).then(|| role.as_str_name().trim_start_matches("ROLE_"));
    let mut tx = service.db.begin().await?;
    // Filters that are not given must not shape the plan.
    sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(&mut *tx).await?;
    let accounts = sqlx::query_as!(
        Account,
        r#"select user_id as "user_id: _", email, display_name, phone, language_code, role as "role: _", version, disabled_at,
             password_version, verified_at, email_refused_at, created_at, updated_at
           from account
           where ($1::text is null or role = $1) and (not $2 or disabled_at is not null)
             and ($3::uuid is null or user_id < $3)
           order by user_id desc limit $4"#,
        role,
        disabled,
        page.after,
        page.limit(),
    );
    let mut accounts = accounts.fetch_all(&mut *tx).await?;
    tx.commit().await?;
    let next_page_token = page.cut(&mut accounts, |account| account.user_id.0);
    Ok(ListUsersResponse { users: accounts.iter().map(Account::to_proto).collect(), next_page_token })
}
