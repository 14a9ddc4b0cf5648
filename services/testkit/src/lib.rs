//! Fixtures for the tests of services: the real server over an in-memory pipe, a fixed clock, minted tokens, and events
//! carried from an outbox to a handler without Kafka in between.

mod log;
mod trial;

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use chassis::event::{Consumer, Record};
use chassis::rpc::SERVICE_HEADER;
use chassis::rpc::token::{Claims, RoleClaim, Verifier};
use chassis::{Clock, Context, Role};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

pub use log::Log;
pub use trial::{try_event, try_key};

const ISSUER: &str = "https://souk.test";
const AUDIENCE: &str = "souk";
/// As whom operators act in tests.
pub const OPERATOR: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

/// One test's surroundings.
pub struct Kit {
    pub context: Context,
    key: EncodingKey,
}

impl Default for Kit {
    fn default() -> Self {
        Self::new()
    }
}

impl Kit {
    /// The clock stands at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        log::subscribe();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(key.expect("a key can be made").as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("the key is an EC key");
        jwk.common.key_id = Some("test".to_owned());
        let verifier = Verifier::new(ISSUER, AUDIENCE);
        verifier.set_keys(&JwkSet { keys: vec![jwk] });
        let start = OffsetDateTime::from_unix_timestamp(1_767_225_600).expect("a date");
        let context = Context {
            clock: Clock::fixed(start),
            verifier: Arc::new(verifier),
            policies: chassis::rpc::policy::Policies::read(contracts::DESCRIPTORS).expect("every RPC has a policy"),
            descriptors: contracts::DESCRIPTORS,
            tasks: tokio_util::task::TaskTracker::new(),
        };
        Self { context, key }
    }

    /// The real server, all its layers included, at the other end of a pipe.
    pub async fn serve(&self, mut role: Role) -> Channel {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        // A server whose listener has ended says goodbye to its connections.
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs)).chain(tokio_stream::pending());
        let server = chassis::boot::server::serve(&mut role, &self.context, incoming, CancellationToken::new());
        let (_health, server) = server.await.expect("the role can be served");
        tokio::spawn(server);
        let mut ours = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_| {
            let pipe = ours.take().ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected));
            std::future::ready(pipe)
        });
        Endpoint::from_static("http://souk.test").connect_with_connector(connector).await.expect("the pipe is open")
    }

    /// A request of a signed-in customer.
    pub fn customer<T>(&self, user_id: Uuid, message: T) -> Request<T> {
        self.signed(user_id, RoleClaim::Customer, message)
    }

    /// A request of an operator.
    pub fn operator<T>(&self, message: T) -> Request<T> {
        self.signed(OPERATOR, RoleClaim::Operator, message)
    }

    /// A request of another service.
    pub fn service<T>(&self, name: &'static str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SERVICE_HEADER, MetadataValue::from_static(name));
        request
    }

    fn signed<T>(&self, sub: Uuid, role: RoleClaim, message: T) -> Request<T> {
        // Tokens are checked against the system's clock.
        let iat = OffsetDateTime::now_utc().unix_timestamp();
        let (iss, aud) = (ISSUER.to_owned(), AUDIENCE.to_owned());
        let claims = Claims { sub, sid: Uuid::from_u128(sub.as_u128() ^ 1), role, iss, aud, iat, exp: iat + 300 };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some("test".to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.key).expect("claims can be signed");
        let mut request = Request::new(message);
        let bearer = format!("Bearer {token}").parse().expect("a token is visible text");
        request.metadata_mut().insert("authorization", bearer);
        request
    }
}

/// The reason of an error, and its domain: `ORDER_NOT_FOUND@souk.order`.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("no ErrorInfo in {status:?}"), |info| format!("{}@{}", info.reason, info.domain))
}

/// The fields that an error names.
pub fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// What stands in the outbox, in the order of its ids.
pub async fn published(db: &PgPool) -> Vec<Record> {
    let rows = sqlx::query(
        "select id, event_id, topic, key, version, type, payload, actor, causation_id, created_at from outbox order by id",
    );
    let rows = rows.fetch_all(db).await.expect("the outbox can be read");
    let records = rows.iter().map(|row| Record {
        topic: row.get("topic"),
        partition: 0,
        offset: row.get("id"),
        key: row.get("key"),
        version: row.get("version"),
        event_id: row.get("event_id"),
        event_type: row.get("type"),
        payload: row.get("payload"),
        actor: row.get("actor"),
        causation_id: row.get("causation_id"),
        occurred_at: row.get("created_at"),
        traceparent: None,
    });
    let records: Vec<_> = records.collect();
    if std::env::var_os("SOUK_RECORD_SAMPLES").is_some() {
        keep_samples(&records);
    }
    records
}

/// The first event of each type that a test comes to see, as it was published, becomes its sample. One that is there is
/// never written again: whatever was published once must be readable for ever.
fn keep_samples(records: &[Record]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/samples");
    for record in records {
        let path = format!("{folder}/{}.binpb", record.event_type);
        match std::fs::File::create_new(&path) {
            Ok(mut file) => file.write_all(&record.payload).expect("the sample can be written"),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// Hands records to a consumer, as the bus would.
pub async fn hear(consumer: &Consumer, clock: &Clock, records: &[Record]) {
    chassis::event::inbox::consume(consumer, clock, records).await.expect("the database is there");
}

/// An event of another service, as it would arrive.
pub fn record(event_type: &str, key: Uuid, version: i64, payload: Vec<u8>) -> Record {
    let topic = event_type.rsplit_once('.').map_or(event_type, |(topic, _)| topic).to_owned();
    Record {
        topic,
        partition: 0,
        offset: version,
        key,
        version,
        event_id: Uuid::from_u128(key.as_u128() ^ u128::from(version.unsigned_abs())),
        event_type: event_type.to_owned(),
        payload,
        actor: "service:test".to_owned(),
        causation_id: None,
        occurred_at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
        traceparent: None,
    }
}
