//! A payment: its row, and its message in responses.

use chassis::{Unexpected, timestamp};
use contracts::souk::payment::v1 as proto;
use contracts::souk::r#type::v1::Money;
use sqlx::{PgConnection, PgExecutor};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::ids::{OrderId, PaymentId};
use crate::state::{Goal, State};

/// How long after a change a payment is compared with the provider, and how often from then on.
pub(crate) const COMPARE_AFTER: Duration = Duration::days(1);

#[derive(Debug, Clone)]
pub(crate) struct Payment {
    pub(crate) payment_id: PaymentId,
    pub(crate) order_id: OrderId,
    pub(crate) user_id: Uuid,
    pub(crate) goal: Goal,
    pub(crate) state: State,
    pub(crate) currency: String,
    pub(crate) amount_minor: i64,
    pub(crate) payment_method: String,
    /// The provider's id of it.
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
    /// Numbers the idempotency key of the current call.
    pub(crate) call: i32,
    /// Whether that call was certainly not sent, or was refused for rate limits.
    pub(crate) not_sent: bool,
    /// Whether more payments were due when this one was claimed.
    pub(crate) others_are_due: bool,
    /// Why no refund is requested any more for an order that ended, such as `DISPUTED`. Empty: refunds are possible.
    pub(crate) refund_refusal: String,
    pub(crate) attempts: i32,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// A query whose rows are payments: the text before their columns, the text after them, and its parameters. A claim also gives
/// expressions for `not_sent` and `others_are_due`.
macro_rules! payments {
    ($head:tt .. $tail:tt $(, $parameter:expr)* $(,)?) => {
        $crate::payment::payments!($head .. "unsent" .. "false" .. $tail $(, $parameter)*)
    };
    ($head:tt .. $not_sent:tt .. $others:tt .. $tail:tt $(, $parameter:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::payment::Payment,
            $head
                + r#" payment_id as "payment_id!: _", order_id as "order_id!: _", user_id as "user_id!", goal as "goal!: _",
                      state as "state!: _", currency as "currency!", amount_minor as "amount_minor!",
                      payment_method as "payment_method!", intent_id as "intent_id?", captured_minor as "captured_minor!",
                      refunded_minor as "refunded_minor!", refund_pending_minor as "refund_pending_minor!",
                      failure_reason as "failure_reason!", version as "version!", cause_id as "cause_id!", lease as "lease?",
                      call as "call!", refund_refusal as "refund_refusal!", attempts as "attempts!",
                      created_at as "created_at!", updated_at as "updated_at!", "#
                + $not_sent
                + r#" as "not_sent!", "#
                + $others
                + r#" as "others_are_due!" "#
                + $tail,
            $($parameter),*
        )
    };
}
pub(crate) use payments;

impl Payment {
    pub(crate) fn money(&self, minor: i64) -> Money {
        Money::new(self.currency.clone(), minor)
    }

    /// Changes the state, if that is legal. The next call is the first of its kind.
    pub(crate) fn step_to(&mut self, next: State) -> Result<(), Unexpected> {
        if !self.state.may_become(next) {
            let (from, to) = (self.state.name(), next.name());
            return Err(Unexpected::Broken(format!("it cannot go from {from} to {to}")));
        }
        (self.state, self.call) = (next, 1);
        Ok(())
    }

    /// Whether its order ended, and a part of the captured amount is neither refunded nor reserved for a refund.
    pub(crate) fn owes_refund(&self) -> bool {
        self.goal == Goal::Released && self.unrefunded() > 0 && self.refund_refusal.is_empty()
    }

    /// The captured amount that is neither refunded nor reserved for a refund.
    pub(crate) fn unrefunded(&self) -> i64 {
        self.captured_minor - self.refunded_minor - self.refund_pending_minor
    }

    /// The idempotency key of the current call.
    pub(crate) fn key(&self, verb: &str) -> String {
        match self.call {
            1 => format!("{}-{verb}", self.payment_id),
            call => format!("{}-{verb}-{call}", self.payment_id),
        }
    }

    pub(crate) async fn lock(db: &mut PgConnection, payment_id: PaymentId) -> Result<Option<Self>, Unexpected> {
        let row = payments!("select".."from payment where payment_id = $1 for no key update", payment_id.0);
        Ok(row.fetch_optional(db).await?)
    }

    /// Reserves an amount for a refund, and makes the payment due. The row is locked; its table refuses more than was captured.
    pub(crate) async fn reserve(
        db: &mut PgConnection,
        payment_id: PaymentId,
        minor: i64,
        now: OffsetDateTime,
    ) -> sqlx::Result<()> {
        sqlx::query!(
            "update payment set refund_pending_minor = refund_pending_minor + $2, due_at = $3, wanted_at = $3, attempts = 0,
               updated_at = $3
             where payment_id = $1",
            payment_id.0,
            minor,
            now,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// As it is now, if the lease on it is still this one.
    pub(crate) async fn leased(
        db: impl PgExecutor<'_>,
        payment_id: PaymentId,
        lease: Option<Uuid>,
    ) -> Result<Option<Self>, Unexpected> {
        let row = payments!("select".."from payment where payment_id = $1 and lease = $2", payment_id.0, lease);
        Ok(row.fetch_optional(db).await?)
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
