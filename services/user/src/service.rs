//! What the service is made of, and what it serves and does without a request.

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::rpc::token::{KEYS_PATH, REVOKED_PATH};
use chassis::{Clock, Context, Job, Role, Unexpected};
use contracts::souk::user::v1::session_service_server::SessionServiceServer;
use contracts::souk::user::v1::user_service_server::UserServiceServer;
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::account;
use crate::mail::Links;
use crate::password::Passwords;
use crate::password_log::PasswordLog;
use crate::prune::prune;
use crate::reset_password;
use crate::revocation;
use crate::session::{Limits, Session};
use crate::signing::{self, Signer};
use crate::throttle::Throttle;

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) passwords: Passwords,
    pub(crate) signer: Signer,
    pub(crate) sessions: Limits,
    pub(crate) links: Links,
    pub(crate) throttle: Throttle,
    pub(crate) password_log: PasswordLog,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
    /// Wakes the job that handles requests to reset a password.
    pub(crate) reset_requested: Wake,
}

impl Service {
    /// An access token of a session, and when it expires: not after the session's end.
    pub(crate) async fn sign(
        &self,
        session: &Session,
        role: account::Role,
        now: OffsetDateTime,
    ) -> Result<(String, OffsetDateTime), Unexpected> {
        let expires = (now + signing::LIFETIME).min(self.sessions.end_of(session));
        let subject = (session.user_id, session.session_id, role);
        let token = self.signer.sign(&self.db, subject, now, expires).await?;
        Ok((token, expires))
    }
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    let resets = Job::new("user.reset_requests", Duration::from_secs(1), service, reset_password::handle_request);
    Role::new(roster::USER, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(UserServiceServer::from_arc(service.clone()))
        .serve(SessionServiceServer::from_arc(service.clone()))
        .publish(&service.db, &service.published)
        .page(KEYS_PATH, signing::page(service))
        .page(REVOKED_PATH, revocation::page(service))
        .job(Job::new("user.signing_keys", signing::READ_EVERY, service, signing::refresh))
        .job(resets.woken_by(service.reset_requested.clone()))
        .job(Job::new("user.prune", Duration::from_secs(60), service, prune))
}
