//! The service under test: the real server over an in-memory pipe, a fixed clock, minted tokens.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use chassis::event::Consumer;
use chassis::rpc::policy::Policies;
use chassis::rpc::stream::Streams;
use chassis::rpc::token::{Claims, Revoked, RoleClaim, Verifier};
use chassis::tls::{Certificates, Connection, Mode, Origin, Party, Tls};
use chassis::{Clock, Context, Role};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use stack::layout::Layout;
use stack::pki;
use time::OffsetDateTime;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

const ISSUER: &str = "https://souk.test";
const AUDIENCE: &str = "souk";
/// As whom operators act in tests.
pub const OPERATOR: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

static CERTIFICATES: LazyLock<Arc<Certificates>> = LazyLock::new(|| {
    let directory = Layout::unit().pki;
    pki::ensure(&directory).expect("certificates can be made");
    Arc::new(Certificates::new(&Tls { mode: Mode::Mutual, mesh_prefix: None, directory, callers: vec![] }))
});

/// Those of this checkout.
pub fn certificates() -> Arc<Certificates> {
    CERTIFICATES.clone()
}

/// What surrounds the service under test.
pub struct Kit {
    pub context: Context,
    key: EncodingKey,
    keys: JwkSet,
    /// The consumer of the role that is served.
    pub(crate) consumer: Option<Consumer>,
    /// New connections to it.
    open: Option<mpsc::Sender<Connection<DuplexStream>>>,
}

impl Default for Kit {
    fn default() -> Self {
        Self::new()
    }
}

impl Kit {
    /// The clock stands at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        crate::log::subscribe();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(key.expect("a key can be made").as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("the key is an EC key");
        jwk.common.key_id = Some("test".to_owned());
        let verifier = Verifier::new(ISSUER, AUDIENCE);
        let keys = JwkSet { keys: vec![jwk] };
        verifier.set_keys(&keys);
        verifier.set_revoked(Revoked::default());
        let start = OffsetDateTime::from_unix_timestamp(1_767_225_600).expect("a date");
        let tasks = TaskTracker::new();
        let verifier = Arc::new(verifier);
        let context = Context {
            clock: Clock::fixed(start),
            streams: Streams::new(&tasks, &verifier),
            verifier,
            policies: Policies::read(contracts::DESCRIPTORS).expect("every RPC has a policy"),
            certificates: certificates(),
            descriptors: contracts::DESCRIPTORS,
            tasks,
        };
        Self { context, key, keys, consumer: None, open: None }
    }

    /// The real server, all its layers included, at the other end of a pipe from the edge.
    pub async fn serve(&mut self, mut role: Role) -> Channel {
        self.consumer = role.consumers.first().cloned();
        let (open, opened) = mpsc::channel(1);
        let incoming = ReceiverStream::new(opened).map(Ok::<_, Error>);
        let server = chassis::boot::server::serve(&mut role, &self.context, incoming, CancellationToken::new());
        let (_health, server) = server.await.expect("the role can be served");
        tokio::spawn(server);
        // A server closes its connections when its listener ends.
        self.open = Some(open);
        self.connect("edge").await
    }

    /// A pipe to the server from another party, such as a service.
    pub async fn connect(&self, party: &str) -> Channel {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let theirs = Connection::new(theirs, Origin::Certificate(Party::new(party)));
        let open = self.open.as_ref().expect("a role is served");
        open.send(theirs).await.expect("the server accepts");
        let mut ours = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_| {
            let pipe = ours.take().ok_or(Error::from(ErrorKind::NotConnected));
            std::future::ready(pipe)
        });
        Endpoint::from_static("http://souk.test").connect_with_connector(connector).await.expect("the pipe is open")
    }

    /// A request of a signed-in customer.
    pub fn customer<T>(&self, user_id: Uuid, message: T) -> Request<T> {
        self.session(user_id, session_of(user_id), message)
    }

    /// A request of a customer with this session.
    pub fn session<T>(&self, user_id: Uuid, session_id: Uuid, message: T) -> Request<T> {
        with_token(&self.token(user_id, session_id), message)
    }

    /// A request of an operator.
    pub fn operator<T>(&self, message: T) -> Request<T> {
        with_token(&self.sign(OPERATOR, session_of(OPERATOR), RoleClaim::Operator), message)
    }

    /// The keys of access tokens, as the user service publishes them.
    pub fn keys(&self) -> JwkSet {
        self.keys.clone()
    }

    /// An access token of a customer.
    pub fn token(&self, user_id: Uuid, session_id: Uuid) -> String {
        self.sign(user_id, session_id, RoleClaim::Customer)
    }

    fn sign(&self, sub: Uuid, sid: Uuid, role: RoleClaim) -> String {
        // Tokens are checked against the system's clock.
        let iat = OffsetDateTime::now_utc().unix_timestamp();
        let (iss, aud) = (ISSUER.to_owned(), AUDIENCE.to_owned());
        let claims = Claims { sub, sid, role, iss, aud, iat, exp: iat + 300 };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some("test".to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).expect("claims can be signed")
    }
}

fn session_of(user_id: Uuid) -> Uuid {
    Uuid::from_u128(user_id.as_u128() ^ 1)
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().expect("a token is visible text");
    request.metadata_mut().insert("authorization", bearer);
    request
}
