//! A refund: its row, and its message in responses.

use chassis::{Clock, Unexpected, timestamp};
use contracts::souk::payment::v1::{self as proto, RefundReason};
use contracts::souk::r#type::v1::Money;
use sqlx::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime};

use crate::ids::{PaymentId, RefundId};

/// The interval at which a refund that the provider accepted is looked up: it grows with the refund's age.
const MIN_INTERVAL: Duration = Duration::minutes(1);
const MAX_INTERVAL: Duration = Duration::hours(1);
/// How many pending refunds of one payment are read to choose the next.
const MAX_PENDING: i64 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Refund {
    pub(crate) refund_id: RefundId,
    pub(crate) payment_id: PaymentId,
    pub(crate) minor: i64,
    pub(crate) state: RefundState,
    /// The provider's id of it, once it is known.
    pub(crate) reference: Option<String>,
    /// Who requested it.
    pub(crate) actor: String,
    /// Such as `ORDER_ENDED`.
    pub(crate) reason: String,
    /// Numbers the idempotency key of its request.
    pub(crate) call: i32,
    /// When it was first requested under that key.
    pub(crate) tried_at: Option<OffsetDateTime>,
    /// The provider's code for why it failed. Empty unless it did.
    pub(crate) failure_reason: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum RefundState {
    Pending,
    Done,
    Failed,
}

/// The fields of a new refund.
pub(crate) struct NewRefund<'a> {
    pub(crate) payment_id: PaymentId,
    pub(crate) minor: i64,
    /// Who requests it.
    pub(crate) actor: &'a str,
    pub(crate) reason: RefundReason,
}

/// A query whose rows are refunds: the text after their columns, and its parameters.
macro_rules! refunds {
    ($tail:tt $(, $parameter:expr)* $(,)?) => {
        sqlx::query_as!(
            Refund,
            r#"select refund_id as "refund_id: _", payment_id as "payment_id: _", minor, state as "state: _", reference, actor,
                 reason, call, tried_at, failure_reason, created_at, updated_at from refund "#
                + $tail,
            $($parameter),*
        )
    };
}

impl RefundState {
    fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("REFUND_STATE_")
    }

    fn to_proto(self) -> proto::RefundState {
        match self {
            Self::Pending => proto::RefundState::Pending,
            Self::Done => proto::RefundState::Done,
            Self::Failed => proto::RefundState::Failed,
        }
    }
}

impl Refund {
    pub(crate) fn new(clock: &Clock, new: NewRefund<'_>) -> Self {
        let now = clock.now();
        Self {
            refund_id: RefundId::new(clock.new_id()),
            payment_id: new.payment_id,
            minor: new.minor,
            state: RefundState::Pending,
            reference: None,
            actor: new.actor.to_owned(),
            reason: new.reason.as_str_name().trim_start_matches("REFUND_REASON_").to_owned(),
            call: 1,
            tried_at: None,
            failure_reason: String::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// The idempotency key of its request.
    pub(crate) fn key(&self) -> String {
        match self.call {
            1 => format!("{}-refund-{}", self.payment_id, self.refund_id),
            call => format!("{}-refund-{}-{call}", self.payment_id, self.refund_id),
        }
    }

    /// Whether its order ended: then it is attempted again if it fails.
    pub(crate) fn is_of_ended_order(&self) -> bool {
        self.reason == "ORDER_ENDED"
    }

    /// When one that is pending is due: at once, unless the provider accepted it; then at growing intervals.
    pub(crate) fn due_at(&self) -> OffsetDateTime {
        match self.reference {
            None => self.updated_at,
            Some(_) => {
                let age = self.updated_at - self.created_at;
                self.updated_at + (age / 10_i32).clamp(MIN_INTERVAL, MAX_INTERVAL)
            }
        }
    }

    pub(crate) async fn insert(&self, db: &mut PgConnection) -> Result<(), Unexpected> {
        sqlx::query!(
            "insert into refund
               (refund_id, payment_id, minor, state, reference, actor, reason, call, tried_at, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            self.refund_id.0,
            self.payment_id.0,
            self.minor,
            self.state.name(),
            self.reference,
            self.actor,
            self.reason,
            self.call,
            self.tried_at,
            self.created_at,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Writes what may change of one that was in the state `before`.
    pub(crate) async fn update(&self, db: &mut PgConnection, before: RefundState) -> Result<(), Unexpected> {
        let changed = sqlx::query!(
            "update refund set state = $2, reference = $3, failure_reason = $4, call = $5, tried_at = $6, updated_at = $7
             where refund_id = $1 and state = $8",
            self.refund_id.0,
            self.state.name(),
            self.reference,
            self.failure_reason,
            self.call,
            self.tried_at,
            self.updated_at,
            before.name(),
        );
        match changed.execute(db).await?.rows_affected() {
            1 => Ok(()),
            _ => Err(Unexpected::Broken(format!("refund {} is not {} any more", self.refund_id, before.name()))),
        }
    }

    /// Those that are pending, the first that is due first.
    pub(crate) async fn pending_of(db: &PgPool, payment_id: PaymentId) -> Result<Vec<Self>, Unexpected> {
        let rows = refunds!(
            "where payment_id = $1 and state = 'PENDING' order by updated_at, refund_id limit $2",
            payment_id.0,
            MAX_PENDING
        );
        let mut refunds = rows.fetch_all(db).await?;
        refunds.sort_by_key(Self::due_at);
        Ok(refunds)
    }

    /// How many of its ended order's refunds failed.
    pub(crate) async fn count_failed(db: &PgPool, payment_id: PaymentId) -> Result<i64, Unexpected> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "n!" from refund where payment_id = $1 and state = 'FAILED' and reason = 'ORDER_ENDED'"#,
            payment_id.0,
        );
        Ok(count.fetch_one(db).await?)
    }

    /// The newest of them, oldest first.
    pub(crate) async fn newest_of(db: &PgPool, payment_id: PaymentId, limit: i64) -> Result<Vec<Self>, Unexpected> {
        let rows = refunds!("where payment_id = $1 order by refund_id desc limit $2", payment_id.0, limit);
        let mut refunds = rows.fetch_all(db).await?;
        refunds.reverse();
        Ok(refunds)
    }

    /// Oldest first.
    pub(crate) async fn all_of(db: &PgPool, payment_id: PaymentId) -> Result<Vec<Self>, Unexpected> {
        let rows = refunds!("where payment_id = $1 order by refund_id", payment_id.0);
        Ok(rows.fetch_all(db).await?)
    }

    pub(crate) fn to_proto(&self, currency: &str) -> proto::Refund {
        let reason = RefundReason::from_str_name(&format!("REFUND_REASON_{}", self.reason));
        proto::Refund {
            refund_id: self.refund_id.to_string(),
            payment_id: self.payment_id.to_string(),
            state: self.state.to_proto().into(),
            amount: Some(Money::new(currency.to_owned(), self.minor)),
            reason: reason.unwrap_or_default().into(),
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            failure_reason: self.failure_reason.clone(),
        }
    }
}
