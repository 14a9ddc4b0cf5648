mod keys;
mod operator;
mod register;
mod session;
mod signing;
mod update;

use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm};
use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::Clock;
use contracts::souk::user::v1::session_service_client::SessionServiceClient;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use contracts::souk::user::v1::*;
use sqlx::PgPool;
use testkit::Kit;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::password::Passwords;
use crate::signing::{Signer, pages};
use crate::{Service, role};

pub(super) const PASSWORD: &str = "correct horse battery";

/// The service with a key of its own, and a client of it.
pub(super) struct Desk {
    pub(super) kit: Kit,
    pub(super) db: PgPool,
    /// Its admin port.
    pub(super) pages: Router,
    channel: Channel,
}

impl Desk {
    pub(super) async fn open(db: PgPool) -> Self {
        let kit = Kit::new();
        let clock = kit.context.clock.clone();
        Self::open_at(db, kit, clock).await
    }

    pub(super) async fn open_at(db: PgPool, kit: Kit, clock: Clock) -> Self {
        Self::open_with(db, kit, clock, Passwords::new(2)).await
    }

    /// One that has no time to check a password.
    pub(super) async fn open_busy(db: PgPool) -> Self {
        let kit = Kit::new();
        let clock = kit.context.clock.clone();
        Self::open_with(db, kit, clock, Passwords::new(0)).await
    }

    async fn open_with(db: PgPool, kit: Kit, clock: Clock, passwords: Passwords) -> Self {
        let signer = signer(&[&key_file()]);
        let pages = pages(&signer);
        let service = Service { db: db.clone(), clock, passwords, signer };
        let channel = kit.serve(role(service, ([127, 0, 0, 1], 0).into(), &kit.context)).await;
        Self { kit, db, pages, channel }
    }

    pub(super) fn users(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel.clone())
    }

    pub(super) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(super) async fn register(&self, key: &str, email: &str) -> Result<User, Status> {
        let response = self.users().register_user(registration(key, email)).await?;
        Ok(response.into_inner().user.expect("a success has the user"))
    }
}

pub(super) fn registration(key: &str, email: &str) -> RegisterUserRequest {
    RegisterUserRequest {
        request_id: key.to_owned(),
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
    }
}

pub(super) fn login(email: &str, password: &str) -> Request<CreateSessionRequest> {
    Request::new(CreateSessionRequest { email: email.to_owned(), password: password.to_owned() })
}

/// A file that is gone when the test is over.
pub(super) struct File(PathBuf);

impl File {
    pub(super) fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("souk-{name}-{}", uuid::Uuid::now_v7()));
        std::fs::write(&path, content).expect("the folder for temporary files can be written");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Whoever took it away already did what is wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A fresh key, as an administrator would have put it there.
pub(super) fn key_file() -> File {
    key_file_of(&ECDSA_P256_SHA256_FIXED_SIGNING)
}

pub(super) fn key_file_of(curve: &'static EcdsaSigningAlgorithm) -> File {
    let key = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new());
    let body = STANDARD.encode(key.expect("a key can be made").as_ref());
    File::new("key", &format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
}

pub(super) fn signer(files: &[&File]) -> Signer {
    let paths: Vec<_> = files.iter().map(|file| file.path().to_owned()).collect();
    Signer::read(&paths, "https://souk.test", "souk").expect("the keys are good")
}
