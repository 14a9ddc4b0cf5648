//! The keys of access tokens: the files of a folder that all replicas share. They are read again and again, so keys are replaced
//! without a restart: a new file is published at once, signs after a while, and the old one can then be removed.
//!
//! Which keys are published, and which signs, follows from a table: so it is the same for all replicas.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{MethodRouter, get};
use chassis::rpc::token::Claims;
use chassis::{Next, Unexpected};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sqlx::PgPool;
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::account::{Role, UserId};
use crate::document;
use crate::service::Service;
use crate::session::SessionId;

/// How long an access token is valid.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);
/// How often the folder is read.
pub(crate) const READ_EVERY: Duration = Duration::from_secs(15);
/// How long a key is published after the last replica had its file: each signs with it until it has read the folder again.
pub(crate) const RETIRED: Duration = LIFETIME.saturating_add(Duration::from_secs(120));
/// The most files. Each is published.
const MOST: usize = 20;

pub(crate) struct Signer {
    folder: PathBuf,
    /// How long a key is published before it signs.
    lead: Duration,
    issuer: String,
    audience: String,
    keys: RwLock<Arc<Keys>>,
}

struct Keys {
    /// Those whose files are there, by their ids.
    held: HashMap<String, Held>,
    published: JwkSet,
    /// The id of the key that signs; none before the table was read.
    signing: Option<String>,
}

#[derive(Clone)]
struct Held {
    private: EncodingKey,
    public: Jwk,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a PKCS#8 PEM file of a P-256 key")]
    Unusable { path: PathBuf },
    #[error("{path} has {count} files that end with .pem, and needs 1 to {MOST}")]
    Count { path: PathBuf, count: usize },
}

impl Signer {
    pub(crate) fn read(folder: &Path, lead: Duration, issuer: &str, audience: &str) -> Result<Self, KeyError> {
        let held = read_folder(folder)?;
        let published = JwkSet { keys: held.values().map(|key| key.public.clone()).collect() };
        let keys = RwLock::new(Arc::new(Keys { held, published, signing: None }));
        let (folder, issuer, audience) = (folder.to_owned(), issuer.to_owned(), audience.to_owned());
        Ok(Self { folder, lead, issuer, audience, keys })
    }

    /// An access token.
    pub(crate) async fn sign(
        &self,
        db: &PgPool,
        (user_id, session_id, role): (UserId, SessionId, Role),
        now: OffsetDateTime,
        expires: OffsetDateTime,
    ) -> Result<String, Unexpected> {
        if self.keys().signing.is_none() {
            self.refresh(db, now).await?;
        }
        let keys = self.keys();
        let signing = keys.signing.as_ref().and_then(|key_id| keys.held.get(key_id));
        let Held { private, public } = signing.ok_or_else(|| Unexpected::Broken("no key signs tokens".to_owned()))?;
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid.clone_from(&public.common.key_id);
        let claims = Claims {
            sub: user_id.0,
            sid: session_id.0,
            role: role.to_claim(),
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            iat: now.unix_timestamp(),
            exp: expires.unix_timestamp(),
        };
        let token = jsonwebtoken::encode(&header, &claims, private);
        token.map_err(|error| Unexpected::Broken(format!("an access token was not signed: {error}")))
    }

    /// Reads the folder and the table. If the folder cannot be read, the last keys stay.
    pub(crate) async fn refresh(&self, db: &PgPool, now: OffsetDateTime) -> Result<(), Unexpected> {
        let read = read_folder(&self.folder);
        let held = read.as_ref().map_or_else(|_| self.keys().held.clone(), Clone::clone);
        let rows = record(db, &held, now).await?;
        let signing = choose(&rows, &held, now - self.lead);
        let mut published: Vec<_> = rows.into_iter().map(|row| row.public).collect();
        published.sort_unstable_by(|one, other| one.common.key_id.cmp(&other.common.key_id));
        let before = self.keys().signing.clone();
        if before != signing {
            tracing::info!(key_id = signing, before, "another key signs access tokens");
        }
        let keys = Keys { held, published: JwkSet { keys: published }, signing };
        *self.keys.write().expect("nothing panics while it holds this lock") = Arc::new(keys);
        read.map(drop).map_err(|error| Unexpected::Broken(format!("USER_SIGNING_KEY_FOLDER: {error}")))
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().expect("nothing panics while it holds this lock").clone()
    }
}

/// A key that is published.
struct Row {
    key_id: String,
    public: Jwk,
    seen_at: OffsetDateTime,
}

/// Records that these keys are held, and returns all that are to be published, those that were seen last first.
async fn record(db: &PgPool, held: &HashMap<String, Held>, now: OffsetDateTime) -> Result<Vec<Row>, Unexpected> {
    let mut held: Vec<_> = held.iter().collect();
    // In one order, so that replicas do not wait for each other in a circle.
    held.sort_unstable_by_key(|(key_id, _)| *key_id);
    let mut tx = db.begin().await?;
    sqlx::query!(
        "insert into signing_key (key_id, public_key, seen_at, held_at)
         select key_id, public_key, $3, $3 from unnest($1::text[], $2::jsonb[]) as it (key_id, public_key)
         on conflict (key_id) do update set held_at = greatest(signing_key.held_at, excluded.held_at)",
        &held.iter().map(|(key_id, _)| (*key_id).clone()).collect::<Vec<_>>(),
        &held.iter().map(|(_, key)| serde_json::to_value(&key.public)).collect::<Result<Vec<_>, _>>()?,
        now,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("delete from signing_key where held_at <= $1", now - RETIRED).execute(&mut *tx).await?;
    let rows = sqlx::query!(
        r#"select key_id, public_key as "public_key: Json<Jwk>", seen_at from signing_key order by seen_at desc, key_id"#
    );
    let rows = rows.fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(|row| Row { key_id: row.key_id, public: row.public_key.0, seen_at: row.seen_at }).collect())
}

/// The key that signs: of those that everybody knows, the newest; of none, the oldest, as of the first keys of all.
fn choose(rows: &[Row], held: &HashMap<String, Held>, known_since: OffsetDateTime) -> Option<String> {
    let mut ours = rows.iter().filter(|row| held.contains_key(&row.key_id));
    let known = ours.clone().find(|row| row.seen_at <= known_since);
    let oldest = || ours.clone().map(|row| row.seen_at).min().and_then(|at| ours.find(|row| row.seen_at == at));
    known.or_else(oldest).map(|row| row.key_id.clone())
}

/// Files whose names begin with a dot are how Kubernetes replaces the others.
fn read_folder(folder: &Path) -> Result<HashMap<String, Held>, KeyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Unreadable { path, source }
    };
    let (mut held, mut count) = (HashMap::new(), 0);
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || !name.ends_with(".pem") {
            continue;
        }
        count += 1;
        let pem = std::fs::read(&path).map_err(unreadable(&path))?;
        let key = parse(&pem).ok_or(KeyError::Unusable { path })?;
        held.insert(key.public.common.key_id.clone().unwrap_or_default(), key);
    }
    if (1..=MOST).contains(&count) { Ok(held) } else { Err(KeyError::Count { path: folder.to_owned(), count }) }
}

/// A private key and its public half, named by its RFC 7638 thumbprint.
fn parse(pem: &[u8]) -> Option<Held> {
    let private = EncodingKey::from_ec_pem(pem).ok()?;
    let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256).ok()?;
    public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256).ok()?);
    public.common.public_key_use = Some(PublicKeyUse::Signature);
    Some(Held { private, public })
}

/// The job that reads the keys again.
pub(crate) async fn refresh(service: Arc<Service>) -> Result<Next, Unexpected> {
    service.signer.refresh(&service.db, service.clock.now()).await?;
    Ok(Next::AfterPause)
}

/// The public keys, for every other role and for the edge.
pub(crate) fn page(service: &Arc<Service>) -> MethodRouter {
    get(read).with_state(service.clone())
}

async fn read(State(service): State<Arc<Service>>, request: HeaderMap) -> axum::response::Response {
    let body = serde_json::to_string(&service.signer.keys().published).expect("public keys are plain data");
    document::answer(&request, "public, max-age=15", body)
}
