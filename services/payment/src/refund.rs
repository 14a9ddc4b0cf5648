//! Operators give back what was captured, or a part of it. The amount is reserved here; the step that drives the payment
//! asks the provider, see [`crate::drive`].

use chassis::rpc::error::on_constraint;
use chassis::rpc::idempotency::{self, Begun};
use chassis::{Caller, Unexpected, timestamp};
use contracts::souk::payment::v1::{self as proto, RefundPaymentRequest, RefundPaymentResponse, RefundReason};
use contracts::souk::r#type::v1::Money;
use sqlx::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::Service;
use crate::error::Error;
use crate::goal::State;
use crate::payment::Payment;
use crate::read::parse_id;

/// How often the provider is asked about a refund that it has taken, at first and at last.
const UNDER_WAY: Duration = Duration::minutes(1);
const LONG_UNDER_WAY: Duration = Duration::hours(1);
/// Of how many pending refunds of one payment the next is chosen.
const MOST_PENDING: i64 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Refund {
    pub(crate) refund_id: Uuid,
    pub(crate) payment_id: Uuid,
    pub(crate) minor: i64,
    /// `PENDING`, `DONE` or `FAILED`.
    pub(crate) state: String,
    /// The provider's name for it, once it is known.
    pub(crate) reference: Option<String>,
    /// Who asked for it.
    pub(crate) actor: String,
    /// Such as `ORDER_ENDED`.
    pub(crate) reason: String,
    /// Numbers the key under which the provider is asked.
    pub(crate) call: i32,
    /// When the provider was first asked under that key.
    pub(crate) tried_at: Option<OffsetDateTime>,
    /// The provider's code for why it failed. Empty unless it did.
    pub(crate) failure_reason: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

pub(crate) async fn refund(
    service: &Service,
    caller: &Caller,
    mut request: RefundPaymentRequest,
) -> Result<RefundPaymentResponse, Error> {
    let payment_id = parse_id(&request.payment_id)?;
    let key = caller.take_key(&mut request.request_id)?;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    // An answer that was stored by a release without `full_refund` is still replayed.
    let wanted = Wanted::parse(&request)?;
    let payment = Payment::lock(&mut tx, payment_id).await?.ok_or(Error::PaymentNotFound)?;
    if payment.state != State::Captured {
        return Err(Error::PaymentNotCaptured { state: payment.state });
    }
    let (left, now) = (payment.unrefunded(), service.clock.now());
    let minor = match wanted {
        Wanted::Part(minor) => minor,
        Wanted::Everything if left == 0 => return Err(Error::RefundExceedsCapture { left }),
        Wanted::Everything => left,
    };
    sqlx::query!(
        "update payment set refund_pending_minor = refund_pending_minor + $2, due_at = $3, wanted_at = $3, attempts = 0,
           updated_at = $3
         where payment_id = $1",
        payment_id,
        minor,
        now,
    )
    .execute(&mut *tx)
    .await
    .map_err(on_constraint("payment_refunds", Error::RefundExceedsCapture { left }))?;
    let refund = Refund::new(service, payment_id, minor, (&caller.actor(), request.reason()));
    refund.insert(&mut tx).await?;

    let payment = Payment::lock(&mut tx, payment_id).await?.ok_or(Error::PaymentNotFound)?;
    let refund = refund.to_proto(&payment.currency);
    let response = RefundPaymentResponse { payment: Some(payment.to_proto()), refund: Some(refund) };
    tx.commit(&response).await?;
    service.work.wake();
    Ok(response)
}

/// How much the operator wants to give back.
enum Wanted {
    Part(i64),
    Everything,
}

impl Wanted {
    /// The contract checks each field alone; that exactly one of the two is given is checked here.
    fn parse(request: &RefundPaymentRequest) -> Result<Self, Error> {
        match (request.amount_minor, request.full_refund) {
            (Some(minor), false) => Ok(Self::Part(minor)),
            (None, true) => Ok(Self::Everything),
            (None, false) | (Some(_), true) => Err(Error::RefundAmountUnclear),
        }
    }
}

impl Refund {
    pub(crate) fn new(service: &Service, payment_id: Uuid, minor: i64, (actor, reason): (&str, RefundReason)) -> Self {
        let now = service.clock.now();
        Self {
            refund_id: service.clock.new_id(),
            payment_id,
            minor,
            state: "PENDING".to_owned(),
            reference: None,
            actor: actor.to_owned(),
            reason: reason.as_str_name().trim_start_matches("REFUND_REASON_").to_owned(),
            call: 1,
            tried_at: None,
            failure_reason: String::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// Under which the provider is asked.
    pub(crate) fn key(&self) -> String {
        match self.call {
            1 => format!("{}-refund-{}", self.payment_id, self.refund_id),
            call => format!("{}-refund-{}-{call}", self.payment_id, self.refund_id),
        }
    }

    pub(crate) async fn insert(&self, db: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query!(
            "insert into refund
               (refund_id, payment_id, minor, state, reference, actor, reason, call, tried_at, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            self.refund_id,
            self.payment_id,
            self.minor,
            self.state,
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

    /// When the provider is asked about one that is pending: at once, unless it has taken it; then the longer it takes, the more
    /// seldom.
    pub(crate) fn due_at(&self) -> OffsetDateTime {
        match self.reference {
            None => self.updated_at,
            Some(_) => {
                let age = self.updated_at - self.created_at;
                self.updated_at + (age / 10_i32).clamp(UNDER_WAY, LONG_UNDER_WAY)
            }
        }
    }

    /// Those that are pending, the first that is due first.
    pub(crate) async fn pending_of(db: &PgPool, payment_id: Uuid) -> Result<Vec<Self>, Unexpected> {
        let rows = sqlx::query_as!(
            Self,
            "select refund_id, payment_id, minor, state, reference, actor, reason, call, tried_at,
               failure_reason, created_at, updated_at
             from refund where payment_id = $1 and state = 'PENDING' order by updated_at, refund_id limit $2",
            payment_id,
            MOST_PENDING,
        );
        let mut refunds = rows.fetch_all(db).await?;
        refunds.sort_by_key(Self::due_at);
        Ok(refunds)
    }

    /// The newest of them, oldest first.
    pub(crate) async fn newest_of(db: &PgPool, payment_id: Uuid, limit: i64) -> Result<Vec<Self>, Unexpected> {
        let rows = sqlx::query_as!(
            Self,
            "select refund_id, payment_id, minor, state, reference, actor, reason, call, tried_at,
               failure_reason, created_at, updated_at
             from refund where payment_id = $1 order by refund_id desc limit $2",
            payment_id,
            limit,
        );
        let mut refunds = rows.fetch_all(db).await?;
        refunds.reverse();
        Ok(refunds)
    }

    /// Oldest first.
    pub(crate) async fn all_of(db: &PgPool, payment_id: Uuid) -> Result<Vec<Self>, Unexpected> {
        let rows = sqlx::query_as!(
            Self,
            "select refund_id, payment_id, minor, state, reference, actor, reason, call, tried_at,
               failure_reason, created_at, updated_at
             from refund where payment_id = $1 order by refund_id",
            payment_id,
        );
        Ok(rows.fetch_all(db).await?)
    }

    pub(crate) fn to_proto(&self, currency: &str) -> proto::Refund {
        let state = proto::RefundState::from_str_name(&format!("REFUND_STATE_{}", self.state));
        let reason = RefundReason::from_str_name(&format!("REFUND_REASON_{}", self.reason));
        proto::Refund {
            refund_id: self.refund_id.to_string(),
            payment_id: self.payment_id.to_string(),
            state: state.unwrap_or_default().into(),
            amount: Some(Money::new(currency.to_owned(), self.minor)),
            reason: reason.unwrap_or_default().into(),
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            failure_reason: self.failure_reason.clone(),
        }
    }
}
