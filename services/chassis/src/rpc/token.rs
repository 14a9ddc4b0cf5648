//! Access tokens: JWTs that the user service signs with ES256. They are verified once, and cached until they expire; whether
//! their session was revoked is looked up each time. The keys and the revoked sessions are polled from the user service; while
//! it is unreachable, the last ones stay. A token is never logged.

mod source;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::rpc::caller::Identity;
use crate::rpc::client::Peer;
use crate::rpc::error::Error;
use crate::rpc::token::source::Source;

/// How many verified tokens are cached.
const CACHED: usize = 10_000;
const MAX_KEYS: usize = 64 << 10;
/// About 400,000 sessions.
const MAX_REVOKED: usize = 16 << 20;
/// Of the documents that the user service serves to all parties beside its RPCs.
pub const KEYS_PATH: &str = "/.well-known/jwks.json";
pub const REVOKED_PATH: &str = "/internal/revoked";
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleClaim {
    Customer,
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: Uuid,
    pub sid: Uuid,
    pub role: RoleClaim,
    pub iss: String,
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
}

impl Claims {
    fn identity(&self) -> Identity {
        let (user_id, session_id) = (self.sub, self.sid);
        match self.role {
            RoleClaim::Customer => Identity::Customer { user_id, session_id },
            RoleClaim::Operator => Identity::Operator { user_id, session_id },
        }
    }
}

/// The sessions that ended early and whose access tokens have not expired yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    pub session_ids: Vec<Uuid>,
}

/// The keys of one document, and the tokens that were verified with them: if a key is removed, so are its tokens.
struct Keys {
    by_id: HashMap<String, DecodingKey>,
    verified: Cache<[u8; 32], (Identity, Uuid, i64)>,
}

pub struct Verifier {
    pub issuer: String,
    pub audience: String,
    keys: watch::Sender<Option<Arc<Keys>>>,
    revoked: watch::Sender<Option<HashSet<Uuid>>>,
    validation: Validation,
    /// How long calls of a process that has just started wait until it can verify access tokens.
    pub patience: Duration,
    started: Instant,
}

impl Verifier {
    pub fn new(issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 5;
        let (issuer, audience) = (issuer.to_owned(), audience.to_owned());
        let (keys, revoked) = (watch::Sender::new(None), watch::Sender::new(None));
        let (patience, started) = (PATIENCE, Instant::now());
        Self { issuer, audience, keys, revoked, validation, patience, started }
    }

    /// Replaces the keys. Tokens that were verified with the former ones are verified again.
    pub fn set_keys(&self, keys: &JwkSet) {
        let usable = keys.keys.iter().filter_map(|key| {
            let id = key.common.key_id.clone()?;
            Some((id, DecodingKey::from_jwk(key).ok()?))
        });
        let keys = Keys { by_id: usable.collect(), verified: Cache::new(CACHED) };
        self.keys.send_replace(Some(Arc::new(keys)));
    }

    /// Replaces the list of revoked sessions.
    pub fn set_revoked(&self, revoked: Revoked) {
        self.revoked.send_replace(Some(revoked.session_ids.into_iter().collect()));
    }

    pub fn verify(&self, token: &str) -> Result<Identity, Error> {
        let (identity, session_id) = self.identify(token)?;
        match self.revoked.borrow().as_ref() {
            None => Err(Error::KeysUnavailable),
            Some(revoked) if revoked.contains(&session_id) => Err(Error::TokenRevoked),
            Some(_) => Ok(identity),
        }
    }

    /// Whether a session has ended whose tokens were valid before.
    pub fn is_revoked(&self, session_id: Uuid) -> bool {
        self.revoked.borrow().as_ref().is_some_and(|revoked| revoked.contains(&session_id))
    }

    /// The caller and the session of a valid token, which may have been revoked.
    fn identify(&self, token: &str) -> Result<(Identity, Uuid), Error> {
        let keys = self.keys.borrow().clone().ok_or(Error::KeysUnavailable)?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some((identity, session_id, expires)) = keys.verified.get(&hash) {
            if expires > OffsetDateTime::now_utc().unix_timestamp() {
                return Ok((identity, session_id));
            }
            keys.verified.remove(&hash);
        }
        let head = jsonwebtoken::decode_header(token).map_err(|_| Error::TokenInvalid("it is not a JWT"))?;
        if head.typ.as_deref() != Some("at+jwt") {
            return Err(Error::TokenInvalid("it is not an access token"));
        }
        let key =
            head.kid.and_then(|id| keys.by_id.get(&id).cloned()).ok_or(Error::TokenInvalid("its key is unknown"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.validation);
        let claims = claims.map_err(|error| Error::TokenInvalid(explain(error.kind())))?.claims;
        let identity = claims.identity();
        keys.verified.insert(hash, (identity.clone(), claims.sid, claims.exp));
        Ok((identity, claims.sid))
    }

    /// Waits until tokens can be verified.
    pub async fn ready(&self) {
        self.keys.subscribe().wait_for(Option::is_some).await.expect("we hold the sender");
        self.revoked.subscribe().wait_for(Option::is_some).await.expect("we hold the sender");
    }

    fn is_ready(&self) -> bool {
        self.keys.borrow().is_some() && self.revoked.borrow().is_some()
    }

    /// Whether tokens can be verified, or the process is too old for waiting until they can.
    pub(crate) fn has_settled(&self) -> bool {
        self.is_ready() || self.started.elapsed() >= self.patience
    }

    /// Waits until tokens can be verified, but not for longer than after a start.
    pub(crate) async fn ready_in_time(&self) -> bool {
        self.is_ready() || timeout_at(self.started + self.patience, self.ready()).await.is_ok()
    }

    /// Polls the keys and the list of revoked sessions until `stop` is cancelled.
    pub async fn poll(self: Arc<Self>, user: Peer, stop: CancellationToken) {
        let keys = Source::new("keys", user.clone(), KEYS_PATH, MAX_KEYS);
        let keys = keys.poll(|body| serde_json::from_slice(body).map(|keys| self.set_keys(&keys)), stop.clone());
        let revoked = Source::new("revoked sessions", user, REVOKED_PATH, MAX_REVOKED);
        let revoked = revoked.poll(|body| serde_json::from_slice(body).map(|list| self.set_revoked(list)), stop);
        tokio::join!(keys, revoked);
    }
}

fn explain(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => "its issuer or audience is wrong",
        _ => "it is malformed",
    }
}
