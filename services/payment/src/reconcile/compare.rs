//! Compares our ledger with the provider's record. Pure, but for reading the ledger.

use chassis::Unexpected;

use crate::changes::Fact;
use crate::ids::PaymentId;
use crate::payment::Payment;
use crate::refund::{Refund, RefundState};
use crate::service::Service;
use crate::state::{Goal, State};
use crate::stripe::{self, Intent, RefundStatus, Response, Status};

/// What may differ: an amount, or the provider does not know the intent.
pub(super) const PROBLEMS: [&str; 5] = ["authorized", "captured", "voided", "refunded", "missing"];

pub(super) enum Verdict {
    Same,
    /// One of [`PROBLEMS`].
    Differs(&'static str),
    /// The provider shows a change that is not recorded, and can be.
    Record(Fact),
    Broken(String),
}

/// The sums of movements, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) authorized: i64,
    pub(super) captured: i64,
    pub(super) voided: i64,
    pub(super) refunded: i64,
}

/// The provider's record of a payment. Refunds only where they were read.
pub(super) struct Theirs {
    pub(super) intent: Response<Intent>,
    pub(super) refunds: Option<Response<Vec<stripe::Refund>>>,
}

impl Sums {
    pub(super) async fn of(service: &Service, payment_id: PaymentId) -> Result<Self, Unexpected> {
        let row = sqlx::query_as!(
            Self,
            r#"select coalesce(sum(minor) filter (where kind = 'AUTHORIZATION'), 0)::bigint as "authorized!",
                 coalesce(sum(minor) filter (where kind = 'CAPTURE'), 0)::bigint as "captured!",
                 coalesce(sum(minor) filter (where kind = 'VOID'), 0)::bigint as "voided!",
                 coalesce(sum(case kind when 'REFUND' then minor when 'REFUND_REVERSAL' then -minor end), 0)::bigint
                   as "refunded!"
               from ledger_transfer where payment_id = $1"#,
            payment_id.0,
        );
        Ok(row.fetch_one(&service.db).await?)
    }

    /// The same sums of the provider.
    fn at_provider(payment: &Payment, intent: &Intent) -> Self {
        let authorized = if intent.was_authorized() { payment.amount_minor } else { 0 };
        let voided = match intent.status {
            Status::Canceled => authorized,
            // A partial capture releases the remainder.
            Status::Succeeded => authorized - intent.amount_received,
            _ => 0,
        };
        Self { authorized, captured: intent.amount_received, voided, refunded: intent.refunded() }
    }

    fn amounts(self) -> [i64; 4] {
        [self.authorized, self.captured, self.voided, self.refunded]
    }
}

pub(super) fn compare(payment: &Payment, ledger: Sums, refunds: &[Refund], theirs: Theirs) -> Verdict {
    let intent = match theirs.intent {
        Response::Done(intent) => intent,
        Response::Refused(_) => return Verdict::Differs("missing"),
        response => return Verdict::Broken(format!("reading its intent was refused: {response:?}")),
    };
    // The provider released the authorization of an order in progress, which would wait for its capture for ever.
    if (payment.goal, payment.state, intent.status) == (Goal::Authorized, State::Authorized, Status::Canceled) {
        return Verdict::Record(Fact::CaptureFailed { reason: "AUTHORIZATION_LOST" });
    }
    let mut provider = Sums::at_provider(payment, &intent);
    match theirs.refunds {
        None => {}
        Some(Response::Done(listed)) => match unrecorded(payment, &intent.id, refunds, &listed) {
            Some(fact) => return Verdict::Record(fact),
            None => provider.refunded = succeeded(&listed),
        },
        Some(response) => return Verdict::Broken(format!("listing its refunds was refused: {response:?}")),
    }
    let differs = PROBLEMS.into_iter().zip(ledger.amounts().into_iter().zip(provider.amounts()));
    let differs = differs.into_iter().find(|(_, (ours, theirs))| ours != theirs);
    differs.map_or(Verdict::Same, |(problem, _)| Verdict::Differs(problem))
}

/// The first refund with a change that is not recorded: made at the provider, ended there, or failed after it had succeeded.
fn unrecorded(payment: &Payment, intent_id: &str, refunds: &[Refund], listed: &[stripe::Refund]) -> Option<Fact> {
    listed.iter().find_map(|refund| {
        let known = refunds.iter().find(|known| known.reference.as_deref() == Some(refund.id.as_str()));
        match (refund.status, known) {
            (RefundStatus::Succeeded, None)
                // A refund of more than was captured, or without this intent's id, is not recorded: it is a difference.
                if refund.names(intent_id) && refund.amount <= payment.unrefunded() =>
            {
                Some(Fact::RefundedElsewhere { reference: refund.id.clone(), minor: refund.amount })
            }
            (RefundStatus::Succeeded, Some(known))
                if known.state == RefundState::Pending && known.minor == refund.amount =>
            {
                Some(Fact::Refunded { refund: known.clone().into() })
            }
            (RefundStatus::Failed | RefundStatus::Canceled, Some(known)) => {
                let (known, why) = (Box::new(known.clone()), refund.why().to_owned());
                match known.state {
                    RefundState::Pending => Some(Fact::RefundFailed { refund: known, why }),
                    RefundState::Done => Some(Fact::RefundReversed { refund: known, why }),
                    RefundState::Failed => None,
                }
            }
            _ => None,
        }
    })
}

fn succeeded(listed: &[stripe::Refund]) -> i64 {
    listed.iter().filter(|refund| refund.status == RefundStatus::Succeeded).map(|refund| refund.amount).sum()
}
