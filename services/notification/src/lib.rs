//! What customers are told of their orders and accounts, by e-mail and by text messages.
//!
//! It consumes the events of orders, and the requests of the user service for mails with links. Each becomes one notification,
//! in the transaction that updates the inbox; workers deliver it (`deliver`). Neither an address nor a text is stored: the user
//! service is asked for the address at each delivery, and the text is rendered from a template and the event.

mod availability;
pub mod check;
mod claim;
mod contact;
mod deliver;
mod error;
mod ids;
mod kind;
mod list;
mod locale;
mod mail_server;
mod notification;
mod numbers;
mod on_event;
mod outcome;
mod preferences;
mod record;
mod refusals;
mod resend;
mod rpc;
mod service;
mod sms;
mod smtp;
mod templates;
mod text;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::boot::config::parse_duration;
use chassis::boot::{Foundation, Prefixed, Schema, Settings, TimeZone};
use chassis::rpc::client;
use chassis::{Context, Role};
use clap::Args;
use contracts::souk::user::v1::user_service_client::UserServiceClient;

use availability::Availability;
use locale::Language;
use numbers::Numbers;
use service::{Service, role};
use sms::Sms;
use smtp::Smtp;
use templates::Templates;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/notification");
pub static SCHEMA: Schema =
    Schema { service: "notification", migrator: &MIGRATOR, append_only: &[], consumes: on_event::TOPICS };

/// The notification service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The user service, which has the addresses.
    #[arg(default_value = "https://127.0.0.1:9002")]
    user_url: client::Url,
    #[command(flatten)]
    smtp: Prefixed<smtp::Config>,
    #[command(flatten)]
    sms: Prefixed<sms::Config>,
    /// The name of the shop in texts.
    #[arg(default_value = "Souk")]
    shop: String,
    /// The language of texts for accounts that have none.
    #[arg(default_value = "en")]
    language: Language,
    /// The shop's time zone, by its name in the time zone database of IANA, such as `Europe/Berlin`: where the days in texts begin.
    #[arg(default_value = "UTC")]
    time_zone: TimeZone,
    /// How many sets of up to 8 e-mails are delivered at once, and how many of text messages.
    #[arg(default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    workers: u16,
    /// How long a delivery is attempted before it is given up.
    #[arg(default_value = "1d", value_parser = parse_duration)]
    give_up_after: Duration,
    /// How many notifications of orders a user gets within an hour, and how many text messages a number gets in one; the others wait.
    /// 0 means any number.
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u16).range(..=1_000))]
    per_user_and_hour: u16,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::NOTIFICATION;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let service = Service {
        db: config.foundation.pool(roster::NOTIFICATION)?,
        clock: context.clock.of_database(),
        users: UserServiceClient::new(client::connect(
            &context.certificates,
            roster::NOTIFICATION,
            roster::USER,
            &config.user_url,
        )?),
        templates: Templates::new(&config.shop),
        smtp: Smtp::new(&config.smtp)?,
        sms: Sms::new(&config.sms)?,
        language: config.language,
        lease: (config.smtp.timeout + config.smtp.accept_timeout).max(config.sms.timeout)
            + deliver::CONTACT_TIMEOUT
            // For the database.
            + Duration::from_secs(10),
        give_up_after: config.give_up_after,
        per_hour: Some(config.per_user_and_hour.into()).filter(|most| *most > 0),
        time_zone: config.time_zone.clone(),
        numbers: Numbers::default(),
        mail_server: Availability::default(),
        sms_provider: Availability::default(),
        emails: Wake::default(),
        text_messages: Wake::default(),
        refusals: Wake::default(),
    };
    Ok(role(&Arc::new(service), config.workers.into(), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
