//! What the service is made of, and what it serves and does without a request.

use std::sync::Arc;
use std::time::Duration;

use chassis::{Clock, Context, Job, Role};
use contracts::souk::user::v1::session_service_server::SessionServiceServer;
use contracts::souk::user::v1::user_service_server::UserServiceServer;
use sqlx::PgPool;

use crate::password::Passwords;
use crate::session;
use crate::signing::{self, Signer};

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) passwords: Passwords,
    pub(crate) signer: Signer,
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    Role::new(roster::USER, context)
        .database(&service.db, &service.clock)
        .serve(UserServiceServer::from_arc(service.clone()))
        .serve(SessionServiceServer::from_arc(service.clone()))
        .admin(signing::pages(&service.signer))
        .job(Job::new("user.delete_old_sessions", Duration::from_secs(60), service, session::delete_old))
}
