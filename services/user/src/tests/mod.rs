mod change_password;
mod disable;
mod erase;
mod keys;
mod list;
mod mail;
mod operator;
mod password_log;
mod prune;
mod refresh;
mod register;
mod revoked;
mod session;
mod sessions;
mod signing;
mod throttle;
mod update;

use std::sync::Arc;
use std::time::Duration;

use chassis::Clock;
use chassis::Wake;
use chassis::redis::{self, Redis};
use contracts::souk::user::v1::session_service_client::SessionServiceClient;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use sqlx::PgPool;
use testkit::Kit;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::mail::Links;
use crate::password::Passwords;
use crate::password_log::PasswordLog;
use crate::service::{Service, role};
use crate::session::Limits;
use crate::throttle::{Pace, Throttle};
use signing::Folder;

/// Waits are longer than any test.
pub(crate) const PACE: Pace = Pace { free: 10, first: Duration::from_secs(600), longest: Duration::from_secs(2_000) };
pub(super) const DAY: Duration = Duration::from_secs(24 * 3_600);
pub(super) const LIMITS: Limits =
    Limits { idle: DAY.saturating_mul(30), lifetime: DAY.saturating_mul(90), per_user: 3 };

/// The user service with a key of its own, and clients of it. Helpers of single tests are beside these tests.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) keys: Folder,
    pub(super) users: UserServiceClient<Channel>,
    pub(super) sessions: SessionServiceClient<Channel>,
}

/// With attempts of its own, in the Redis of all tests.
pub(crate) async fn throttle() -> Throttle {
    let url = std::env::var("SOUK_TEST_REDIS").expect("SOUK_TEST_REDIS is the URL of a Redis, as in `make test`");
    let config = redis::Config { url: url.into(), password_file: None, timeout: Duration::from_secs(30) };
    let redis = Redis::new(&config).expect("a good URL");
    tokio::spawn(redis.clone().run(CancellationToken::new()));
    redis.connected().await.expect("it connects");
    Throttle::new(redis, &format!("souk:test:{}", Uuid::now_v7()), "a secret of at least 32 characters".into(), PACE)
}

fn links() -> Links {
    Links {
        key: "a secret of at least 32 characters".into(),
        reset_page: "https://shop.test/reset".to_owned(),
        verify_page: "https://shop.test/verify".to_owned(),
        print: false,
    }
}

impl Fixture {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, None, Passwords::new(2)).await
    }

    /// `clock`: another one than the kit's.
    pub(super) async fn open_with(db: PgPool, clock: Option<Clock>, passwords: Passwords) -> Self {
        let mut kit = Kit::new();
        let keys = Folder::new(1);
        let signer = keys.signer();
        let clock = clock.unwrap_or_else(|| kit.context.clock.clone());
        let service = Arc::new(Service {
            db,
            clock,
            passwords,
            signer,
            links: links(),
            throttle: throttle().await,
            password_log: PasswordLog::new(),
            published: Wake::default(),
            reset_requested: Wake::default(),
            sessions: LIMITS,
        });
        let channel = kit.serve(role(&service, &kit.context)).await;
        let (users, sessions) = (UserServiceClient::new(channel.clone()), SessionServiceClient::new(channel));
        Self { kit, service, keys, users, sessions }
    }
}
