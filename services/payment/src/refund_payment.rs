//! Refund what was captured, or a part of it. The amount is reserved here; [`crate::drive`] makes the call to the
//! provider.

use chassis::Caller;
use chassis::rpc::error::on_constraint;
use chassis::rpc::idempotency::{self, Begun};
use contracts::souk::payment::v1::{RefundPaymentRequest, RefundPaymentResponse};

use crate::error::Error;
use crate::ids::PaymentId;
use crate::payment::Payment;
use crate::refund::{NewRefund, Refund};
use crate::service::Service;
use crate::state::State;

pub(crate) async fn refund_payment(
    service: &Service,
    caller: &Caller,
    mut request: RefundPaymentRequest,
) -> Result<RefundPaymentResponse, Error> {
    let payment_id = PaymentId::parse(&request.payment_id).ok_or(Error::PaymentNotFound)?;
    let key = caller.take_key(&mut request.request_id)?;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    // After the replay: a response that was stored by a release without `full_refund` is still replayed.
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
    let reserved = Payment::reserve(&mut tx, payment_id, minor, now).await;
    reserved.map_err(on_constraint("payment_refunds", Error::RefundExceedsCapture { left }))?;
    let new = NewRefund { payment_id, minor, actor: &caller.actor(), reason: request.reason() };
    let refund = Refund::new(&service.clock, new);
    refund.insert(&mut tx).await?;

    let payment = Payment::lock(&mut tx, payment_id).await?.ok_or(Error::PaymentNotFound)?;
    let refund = refund.to_proto(&payment.currency);
    let response = RefundPaymentResponse { payment: Some(payment.to_proto()), refund: Some(refund) };
    tx.commit(&response).await?;
    service.work.wake();
    Ok(response)
}

/// How much the operator wants to refund.
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
