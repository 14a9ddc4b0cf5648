//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;
use std::time::Duration;

use chassis::event::Wake;
use chassis::rpc::client;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::notification::v1::notification_service_server::NotificationServiceServer;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use sqlx::PgPool;

use crate::locale::Language;
use crate::sms::Sms;
use crate::smtp::Smtp;
use crate::templates::Templates;
use crate::{deliver, on_event, refusals};

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) users: UserServiceClient<client::Peer>,
    pub(crate) templates: Templates,
    pub(crate) smtp: Smtp,
    /// None: there are no text messages.
    pub(crate) sms: Option<Sms>,
    /// Of accounts without one.
    pub(crate) language: Language,
    /// How long a worker may take for a delivery: longer than its calls.
    pub(crate) lease: Duration,
    pub(crate) give_up_after: Duration,
    /// How many notifications a user gets within an hour.
    pub(crate) per_hour: Option<i64>,
    /// Wakes workers.
    pub(crate) work: Wake,
    pub(crate) texts: Wake,
    /// Wakes the job that reports refused addresses.
    pub(crate) refusals: Wake,
}

pub(crate) fn role(service: &Arc<Service>, workers: usize, context: &Context) -> Role {
    let emails = Job::new("notification.deliver_emails", Duration::from_secs(1), service, deliver::emails);
    let texts = Job::new("notification.deliver_texts", Duration::from_secs(1), service, deliver::texts);
    let refusals = Job::new("notification.report_refusals", Duration::from_secs(5), service, refusals::report);
    Role::new(roster::NOTIFICATION, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(NotificationServiceServer::from_arc(service.clone()))
        .consume(&service.db, on_event::TOPICS, service)
        .job(emails.workers(workers).woken_by(service.work.clone()))
        .job(texts.workers(workers).woken_by(service.texts.clone()))
        .job(refusals.woken_by(service.refusals.clone()))
        .job(Job::new("notification.measure_behind", Duration::from_secs(10), service, deliver::measure_behind))
}
