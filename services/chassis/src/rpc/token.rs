//! Access tokens: JWTs that the user service signs with ES256. They are verified once, and cached until they expire. The keys are
//! polled from the JWKS; while it is unreachable, the last keys stay. A token is never logged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::rpc::caller::Identity;
use crate::rpc::error::Error;

/// How many verified tokens are cached.
const CACHED: usize = 10_000;
const POLL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(500);
const MAX_KEYS: usize = 64 << 10;

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

pub struct Verifier {
    pub issuer: String,
    pub audience: String,
    keys: watch::Sender<Option<Arc<HashMap<String, DecodingKey>>>>,
    verified: Cache<[u8; 32], (Identity, i64)>,
    validation: Validation,
}

impl Verifier {
    pub fn new(issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 5;
        let (issuer, audience) = (issuer.to_owned(), audience.to_owned());
        Self { issuer, audience, keys: watch::Sender::new(None), verified: Cache::new(CACHED), validation }
    }

    /// Replaces the keys, and clears the cache of verified tokens.
    pub fn set_keys(&self, keys: &JwkSet) {
        let usable = keys.keys.iter().filter_map(|key| {
            let id = key.common.key_id.clone()?;
            Some((id, DecodingKey::from_jwk(key).ok()?))
        });
        let usable = Arc::new(usable.collect());
        self.keys.send_replace(Some(usable));
        self.verified.clear();
    }

    pub fn verify(&self, token: &str) -> Result<Identity, Error> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some((identity, expires)) = self.verified.get(&hash) {
            if expires > OffsetDateTime::now_utc().unix_timestamp() {
                return Ok(identity);
            }
            self.verified.remove(&hash);
        }
        let keys = self.keys.borrow().clone().ok_or(Error::KeysUnavailable)?;
        let head = jsonwebtoken::decode_header(token).map_err(|_| Error::TokenInvalid("it is not a JWT"))?;
        if head.typ.as_deref() != Some("at+jwt") {
            return Err(Error::TokenInvalid("it is not an access token"));
        }
        let key = head.kid.and_then(|id| keys.get(&id).cloned()).ok_or(Error::TokenInvalid("its key is unknown"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.validation);
        let claims = claims.map_err(|error| Error::TokenInvalid(explain(error.kind())))?.claims;
        let identity = claims.identity();
        self.verified.insert(hash, (identity.clone(), claims.exp));
        Ok(identity)
    }

    /// Waits until there are keys.
    pub async fn ready(&self) {
        let has_keys = |keys: &Option<_>| keys.is_some();
        self.keys.subscribe().wait_for(has_keys).await.expect("we hold the sender");
    }

    /// Polls the keys until `stop` is cancelled.
    pub async fn poll(self: Arc<Self>, url: String, stop: CancellationToken) {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build();
        let client = client.expect("a client with default TLS settings can be built");
        let (mut etag, mut warned) = (None, false);
        loop {
            let wait = match self.fetch(&client, &url, &mut etag).await {
                Ok(()) => {
                    warned = false;
                    POLL
                }
                Err(error) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(%error, url, "the keys of access tokens cannot be fetched; the last keys stay");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn fetch(&self, client: &reqwest::Client, url: &str, etag: &mut Option<String>) -> Result<(), FetchError> {
        let mut request = client.get(url);
        if let Some(etag) = etag.as_deref() {
            request = request.header("if-none-match", etag);
        }
        let response = request.send().await?.error_for_status()?;
        if response.status() == http::StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        let tag = response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await?;
        if body.len() > MAX_KEYS {
            return Err(FetchError::TooLarge);
        }
        self.set_keys(&serde_json::from_slice(&body)?);
        *etag = tag;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("it is not a key set: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the key set is too large")]
    TooLarge,
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
