//! Takes the money that is held.

use super::look_up::{ask, conclude};
use super::{Stopped, broken, finish, intent_of};
use crate::Service;
use crate::outcome::Outcome;
use crate::payment::Payment;
use crate::stripe::{Answer, Status};

pub(super) async fn capture(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    match service.provider.capture(&payment.key("capture"), intent_of(payment)?).await? {
        Answer::Done(intent) | Answer::Elsewhere(intent) => conclude(service, payment, &intent).await,
        Answer::Declined(reason) => let_go(service, payment, reason).await,
        Answer::Refused(code) => {
            tracing::warn!(payment_id = %payment.payment_id, code, "the provider does not capture this payment");
            let_go(service, payment, "CAPTURE_REFUSED").await
        }
    }
}

/// A refusal does not say whether the amount is still held, and only what is not held any more may be written down so.
async fn let_go(service: &Service, payment: &Payment, reason: &'static str) -> Result<(), Stopped> {
    let mut intent = ask(service, payment).await?;
    if intent.status == Status::RequiresCapture {
        intent = match service.provider.cancel(&payment.key("cancel"), &intent.id).await? {
            Answer::Done(intent) | Answer::Elsewhere(intent) => intent,
            answer => return Err(broken(payment, &format!("what was not captured was not let go: {answer:?}"))),
        };
    }
    match intent.status {
        Status::Canceled | Status::RequiresPaymentMethod => {
            finish(service, payment, Outcome::CaptureFailed { reason }).await
        }
        _ => conclude(service, payment, &intent).await,
    }
}
