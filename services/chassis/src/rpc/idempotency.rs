//! One effect per idempotency key. [`begin`] opens the transaction of the effect and locks the key; `commit` stores the response
//! in it.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::{Message, Name};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::boot::db::STATEMENT_TIMEOUT;
use crate::rpc::caller::{Caller, Identity};
use crate::rpc::error::{Error, Unexpected};
use crate::rpc::run_to_end;

/// How long a response is stored.
pub const KEPT: time::Duration = time::Duration::days(7);

/// 1 to 128 visible characters. Keys of different callers are different keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    subject: Option<String>,
}

impl Key {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=128).contains(&text.len()) {
            Ok(Self { text: text.to_owned(), subject: None })
        } else {
            Err(Error::KeyInvalid)
        }
    }

    /// For calls without a token, which have no caller: the key belongs to the subject of the call, such as the e-mail address to
    /// register. Only its hash is stored.
    pub fn about(self, subject: &str) -> Self {
        Self { subject: Some(anonymous(subject)), ..self }
    }
}

#[must_use]
pub enum Begun<R> {
    /// The request is new. Without `commit` it has no effect.
    Fresh(Tx<R>),
    /// The request was done before; this is its response.
    Replay(R),
}

/// The transaction of one effect. It derefs to the connection, and can only be committed together with the response.
pub struct Tx<R> {
    /// `None` once it is committed.
    inner: Option<Transaction<'static, Postgres>>,
    slot: Slot,
    response: PhantomData<fn(R)>,
}

const OPEN: &str = "a transaction is open until it is committed, which consumes it";

struct Slot {
    caller: String,
    method: String,
    key: String,
    hash: Vec<u8>,
}

impl Slot {
    fn new<Q: Message + Name>(caller: &Caller, key: &Key, request: &Q) -> Result<Self, Unexpected> {
        let caller = match &caller.identity {
            Identity::Anonymous => key
                .subject
                .clone()
                .ok_or_else(|| Unexpected::Broken("the key of an anonymous call is about nothing".to_owned()))?,
            Identity::Customer { user_id, .. } | Identity::Operator { user_id, .. } => user_id.to_string(),
            Identity::Service { name } => name.clone(),
        };
        let hash = Sha256::digest(request.encode_to_vec()).to_vec();
        Ok(Self { caller, method: Q::full_name(), key: key.text.clone(), hash })
    }
}

/// The stored response, if there is one: for a handler that calls peers before its transaction. A retry must not fail because
/// their responses have changed since.
pub async fn replay<Q, R>(db: &PgPool, caller: &Caller, key: &Key, request: &Q) -> Result<Option<R>, Error>
where
    Q: Message + Name,
    R: Message + Default,
{
    caller.time_left()?;
    let mut connection = db.acquire().await?;
    find(&mut connection, &Slot::new(caller, key, request)?).await
}

/// Locks the key for this request. `request` is hashed, without its `request_id`, see [`Caller::take_key`].
pub async fn begin<Q, R>(db: &PgPool, caller: &Caller, key: &Key, request: &Q) -> Result<Begun<R>, Error>
where
    Q: Message + Name,
    R: Message + Default,
{
    let slot = Slot::new(caller, key, request)?;
    let mut tx = db.begin().await?;
    // Computed only now: the connection may have taken a while.
    if !try_lock(&mut tx, &slot, caller.time_left()?).await? {
        return Err(Error::InProgress);
    }
    match find(&mut tx, &slot).await {
        Ok(None) => Ok(Begun::Fresh(Tx { inner: Some(tx), slot, response: PhantomData })),
        // The key is unlocked before the caller gets a response.
        Ok(Some(response)) => tx.rollback().await.map(|()| Begun::Replay(response)).map_err(Error::from),
        Err(error) => tx.rollback().await.map_err(Error::from).and(Err(error)),
    }
}

impl<R: Message> Tx<R> {
    pub async fn commit(mut self, response: &R) -> Result<(), Error> {
        store(self.inner.as_mut().expect(OPEN), &self.slot, &response.encode_to_vec()).await?;
        Ok(self.inner.take().expect(OPEN).commit().await?)
    }
}

/// A transaction that is dropped is rolled back later, and its key stays locked until then: a caller that is refused and retries
/// at once would get REQUEST_IN_PROGRESS. So the response waits for the rollback.
impl<R> Drop for Tx<R> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            run_to_end::before_response(async move {
                // If it fails, the session has ended, and its transaction with it.
                let _ = inner.rollback().await;
            });
        }
    }
}

impl<R> Deref for Tx<R> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.inner.as_deref().expect(OPEN)
    }
}

impl<R> DerefMut for Tx<R> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.inner.as_deref_mut().expect(OPEN)
    }
}

/// Deletes one batch of responses that are older than [`KEPT`], and returns how many. It skips those that another replica is
/// deleting.
pub async fn delete_old(db: &PgPool) -> Result<u64, Unexpected> {
    let done = sqlx::query!(
        "delete from idempotency where (caller, method, key) in
           (select caller, method, key from idempotency where created_at < now() - make_interval(secs => $1)
            order by created_at limit 1000 for update skip locked)",
        KEPT.as_seconds_f64(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the stored responses to calls about a subject, see [`Key::about`].
pub async fn delete_about(db: &mut PgConnection, subject: &str) -> Result<(), Unexpected> {
    sqlx::query!("delete from idempotency where caller = $1", anonymous(subject)).execute(db).await?;
    Ok(())
}

/// The caller of calls about a subject.
fn anonymous(subject: &str) -> String {
    format!("anonymous:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(subject)))
}

/// Locks the key, and sets the statement timeout of the transaction to the caller's time left.
async fn try_lock(db: &mut PgConnection, slot: &Slot, time_left: Duration) -> sqlx::Result<bool> {
    let timeout = time_left.min(STATEMENT_TIMEOUT).as_millis().max(1);
    let row = sqlx::query!(
        r#"select pg_try_advisory_xact_lock(hashtextextended($1 || ' ' || $2 || ' ' || $3, 0)) as "locked!",
             set_config('statement_timeout', $4, true)"#,
        slot.caller,
        slot.method,
        slot.key,
        timeout.to_string(),
    );
    Ok(row.fetch_one(db).await?.locked)
}

async fn find<R: Message + Default>(db: &mut PgConnection, slot: &Slot) -> Result<Option<R>, Error> {
    let stored = sqlx::query!(
        "select request_hash, response from idempotency where caller = $1 and method = $2 and key = $3",
        slot.caller,
        slot.method,
        slot.key,
    )
    .fetch_optional(db)
    .await?;
    match stored {
        None => Ok(None),
        Some(stored) if stored.request_hash != slot.hash => Err(Error::KeyReused),
        Some(stored) => Ok(Some(R::decode(&*stored.response).map_err(Unexpected::from)?)),
    }
}

async fn store(db: &mut PgConnection, slot: &Slot, response: &[u8]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into idempotency (caller, method, key, request_hash, response, created_at)
         values ($1, $2, $3, $4, $5, now())",
        slot.caller,
        slot.method,
        slot.key,
        slot.hash,
        response,
    )
    .execute(db)
    .await?;
    Ok(())
}
