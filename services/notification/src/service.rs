//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::boot::TimeZone;
use chassis::rpc::client;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::notification::v1::notification_service_server::NotificationServiceServer;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use sqlx::PgPool;

use crate::availability::Availability;
use crate::kind::Channel;
use crate::locale::Language;
use crate::numbers::Numbers;
use crate::sms::Sms;
use crate::smtp::Smtp;
use crate::templates::Templates;
use crate::{deliver, numbers, on_event, preferences, refusals};

const A_MINUTE: Duration = Duration::from_secs(60);

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
    /// Where the days of orders begin.
    pub(crate) time_zone: TimeZone,
    /// How many text messages numbers get.
    pub(crate) numbers: Numbers,
    /// Of the mail server, and of the provider of text messages.
    pub(crate) mail_server: Availability,
    pub(crate) sms_provider: Availability,
    /// Wake workers.
    pub(crate) emails: Wake,
    pub(crate) text_messages: Wake,
    /// Wakes the job that reports refused addresses.
    pub(crate) refusals: Wake,
}

impl Service {
    pub(crate) fn availability(&self, channel: Channel) -> &Availability {
        match channel {
            Channel::Email => &self.mail_server,
            Channel::Sms => &self.sms_provider,
        }
    }
}

pub(crate) fn role(service: &Arc<Service>, workers: usize, context: &Context) -> Role {
    let emails = Job::new("notification.deliver_emails", Duration::from_secs(1), service, deliver::emails);
    let text_messages =
        Job::new("notification.deliver_text_messages", Duration::from_secs(1), service, deliver::text_messages);
    let refusals = Job::new("notification.report_refusals", Duration::from_secs(5), service, refusals::report);
    Role::new(roster::NOTIFICATION, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(NotificationServiceServer::from_arc(service.clone()))
        .consume(&service.db, on_event::TOPICS, service)
        .job(emails.workers(workers).woken_by(service.emails.clone()))
        .job(text_messages.workers(workers).woken_by(service.text_messages.clone()))
        .job(refusals.woken_by(service.refusals.clone()))
        .job(Job::new("notification.erase_latecomers", A_MINUTE, service, preferences::erase_latecomers))
        .job(Job::new("notification.prune_texted_numbers", A_MINUTE * 10, service, numbers::prune))
        .job(Job::new("notification.measure_behind", Duration::from_secs(10), service, deliver::measure_behind))
}
