//! The caller's sessions, newest first.

use chassis::Caller;
use chassis::rpc::page::Page;
use contracts::souk::user::v1::{ListSessionsRequest, ListSessionsResponse};
use uuid::Uuid;

use crate::error::Error;
use crate::service::Service;
use crate::session::{Session, SessionId};

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    request: ListSessionsRequest,
) -> Result<ListSessionsResponse, Error> {
    let (user_id, current) = (caller.user_id()?, SessionId::new(caller.session_id()?));
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("sessions of {user_id}"))?;
    let (limits, now) = (&service.sessions, service.clock.now());
    let mut sessions = sqlx::query_as!(
        Session,
        r#"select session_id as "session_id: _", user_id as "user_id: _", device, created_at, used_at
           from session
           where user_id = $1 and family_hash is not null and used_at > $2 and created_at > $3 and session_id < $4
           order by session_id desc limit $5"#,
        user_id,
        now - limits.idle,
        now - limits.lifetime,
        page.after.unwrap_or(Uuid::max()),
        page.limit(),
    )
    .fetch_all(&service.db)
    .await?;
    let next_page_token = page.cut(&mut sessions, |session| session.session_id.0);
    let sessions = sessions.iter().map(|session| session.to_proto(limits, Some(current))).collect();
    Ok(ListSessionsResponse { sessions, next_page_token })
}
