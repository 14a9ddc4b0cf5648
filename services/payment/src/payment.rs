//! A payment: its row, and how it looks to callers.

use chassis::{Unexpected, timestamp};
use contracts::souk::payment::v1 as proto;
use contracts::souk::r#type::v1::Money;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::goal::{Action, Goal, Rest, State, next};

/// How long after a change a payment is compared with what the provider knows, and how often from then on.
pub(crate) const CHECK_AFTER: Duration = Duration::days(1);

#[derive(Debug, Clone)]
pub(crate) struct Payment {
    pub(crate) payment_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) goal: Goal,
    pub(crate) state: State,
    pub(crate) currency: String,
    pub(crate) amount_minor: i64,
    pub(crate) payment_method: String,
    /// The provider's name for it.
    pub(crate) intent_id: Option<String>,
    pub(crate) captured_minor: i64,
    pub(crate) refunded_minor: i64,
    pub(crate) refund_pending_minor: i64,
    pub(crate) failure_reason: String,
    /// Counts its events.
    pub(crate) version: i64,
    /// The order's event that set the goal.
    pub(crate) cause_id: Uuid,
    pub(crate) lease: Option<Uuid>,
    /// Numbers the key of the call that is under way.
    pub(crate) call: i32,
    /// Whether that call was never sent, or refused before it began.
    pub(crate) unsent: bool,
    /// Why what an order that ended wants back is not asked for any more, such as `DISPUTED`. Empty: nothing stands in the way.
    pub(crate) refund_refusal: String,
    pub(crate) attempts: i32,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// The row as it stands in the table.
pub(crate) struct Row {
    pub(crate) payment_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) goal: String,
    pub(crate) state: String,
    pub(crate) currency: String,
    pub(crate) amount_minor: i64,
    pub(crate) payment_method: String,
    pub(crate) intent_id: Option<String>,
    pub(crate) captured_minor: i64,
    pub(crate) refunded_minor: i64,
    pub(crate) refund_pending_minor: i64,
    pub(crate) failure_reason: String,
    pub(crate) version: i64,
    pub(crate) cause_id: Uuid,
    pub(crate) lease: Option<Uuid>,
    pub(crate) call: i32,
    pub(crate) unsent: bool,
    pub(crate) refund_refusal: String,
    pub(crate) attempts: i32,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

impl Row {
    pub(crate) fn into_payment(self) -> Result<Payment, Unexpected> {
        Ok(Payment {
            payment_id: self.payment_id,
            order_id: self.order_id,
            user_id: self.user_id,
            goal: Goal::parse(&self.goal)?,
            state: State::parse(&self.state)?,
            currency: self.currency,
            amount_minor: self.amount_minor,
            payment_method: self.payment_method,
            intent_id: self.intent_id,
            captured_minor: self.captured_minor,
            refunded_minor: self.refunded_minor,
            refund_pending_minor: self.refund_pending_minor,
            failure_reason: self.failure_reason,
            version: self.version,
            cause_id: self.cause_id,
            lease: self.lease,
            call: self.call,
            unsent: self.unsent,
            refund_refusal: self.refund_refusal,
            attempts: self.attempts,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl Payment {
    pub(crate) fn money(&self, minor: i64) -> Money {
        Money::new(self.currency.clone(), minor)
    }

    /// Changes the state, legally, and keeps it in the history when it is saved.
    pub(crate) fn step_to(&mut self, next: State) -> Result<(), Unexpected> {
        if !self.state.may_become(next) {
            let (from, to) = (self.state.name(), next.name());
            return Err(Unexpected::Broken(format!("payment {} cannot go from {from} to {to}", self.payment_id)));
        }
        (self.state, self.call) = (next, 1);
        Ok(())
    }

    /// What is to be done about it.
    pub(crate) fn action(&self) -> Action {
        let rest = match (self.refund_pending_minor, self.unrefunded()) {
            (0, 0) => Rest::Nothing,
            (0, _) if !self.refund_refusal.is_empty() => Rest::Refused,
            (0, _) => Rest::Kept,
            _ => Rest::Open,
        };
        next(self.goal, self.state, rest)
    }

    /// Whether its order ended, and nobody gives back yet what is left of it.
    pub(crate) fn keeps_too_much(&self) -> bool {
        self.goal == Goal::Released && self.unrefunded() > 0 && self.refund_refusal.is_empty()
    }

    /// What was captured, is not given back and not about to be.
    pub(crate) fn unrefunded(&self) -> i64 {
        self.captured_minor - self.refunded_minor - self.refund_pending_minor
    }

    /// The key of the call that is under way.
    pub(crate) fn key(&self, verb: &str) -> String {
        match self.call {
            1 => format!("{}-{verb}", self.payment_id),
            call => format!("{}-{verb}-{call}", self.payment_id),
        }
    }

    pub(crate) async fn lock(db: &mut PgConnection, payment_id: Uuid) -> Result<Option<Self>, Unexpected> {
        let row = sqlx::query_as!(
            Row,
            "select payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
               captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, cause_id, lease, call, unsent,
               refund_refusal, attempts, created_at, updated_at
             from payment where payment_id = $1 for no key update",
            payment_id,
        );
        row.fetch_optional(db).await?.map(Row::into_payment).transpose()
    }

    /// Writes what may change, and the state into the history if it did. A comparison that is wanted sooner stays wanted.
    pub(crate) async fn save(
        &self,
        db: &mut PgConnection,
        before: State,
        due_at: Option<OffsetDateTime>,
        leased_until: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<(), Unexpected> {
        let history = (before != self.state).then(|| self.state.name());
        sqlx::query!(
            "with history as (
               insert into payment_history (payment_id, state, at) select $1, $14::text, $13 where $14::text is not null
             )
             update payment set state = $2, intent_id = $3, captured_minor = $4, refunded_minor = $5,
               refund_pending_minor = $6, call = $7, failure_reason = $8, version = $9, due_at = $10,
               lease = case when $11::timestamptz is null then null else lease end, leased_until = $11, attempts = $12,
               updated_at = $13, check_at = least(check_at, $15), refund_refusal = $16
             where payment_id = $1",
            self.payment_id,
            self.state.name(),
            self.intent_id,
            self.captured_minor,
            self.refunded_minor,
            self.refund_pending_minor,
            self.call,
            self.failure_reason,
            self.version,
            due_at,
            leased_until,
            self.attempts,
            now,
            history,
            now + CHECK_AFTER,
            self.refund_refusal,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) fn to_proto(&self) -> proto::Payment {
        proto::Payment {
            payment_id: self.payment_id.to_string(),
            order_id: self.order_id.to_string(),
            user_id: self.user_id.to_string(),
            state: self.state.to_proto().into(),
            amount: Some(self.money(self.amount_minor)),
            captured_minor: self.captured_minor,
            refunded_minor: self.refunded_minor,
            failure_reason: self.failure_reason.clone(),
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            refund_pending_minor: self.refund_pending_minor,
            refund_refusal: self.refund_refusal.clone(),
        }
    }
}
