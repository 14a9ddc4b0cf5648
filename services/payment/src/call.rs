//! The calls to the provider that drive a payment. Nothing else in this crate changes anything there.

use crate::payment::Payment;
use crate::refund::Refund;
use crate::stripe::{self, CallError, Intent, Response, Stripe};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    // Those that change something.
    Create(&'a Payment),
    Confirm(&'a Payment, &'a str),
    Capture(&'a Payment, &'a str),
    Cancel(&'a Payment, &'a str),
    Refund { refund: &'a Refund, intent_id: &'a str },
    // Those that ask.
    Get { intent_id: &'a str },
    GetRefund { refund: &'a Refund, reference: &'a str },
    ListRefunds { refund: &'a Refund, intent_id: &'a str },
}

impl Call<'_> {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Confirm(..) => "confirm",
            Self::Capture(..) => "capture",
            Self::Cancel(..) => "cancel",
            Self::Refund { .. } => "refund",
            Self::Get { .. } => "get",
            Self::GetRefund { .. } => "get refund",
            Self::ListRefunds { .. } => "list refunds",
        }
    }
}

/// The provider's response, by what it is about.
#[derive(Debug)]
pub(crate) enum CallResponse {
    Intent(Response<Intent>),
    Refund(Response<stripe::Refund>),
    Refunds(Response<Vec<stripe::Refund>>),
}

/// Keys are the payment's or the refund's, so that a call that is repeated moves no money twice.
pub(crate) async fn make(call: Call<'_>, provider: &Stripe) -> Result<CallResponse, CallError> {
    Ok(match call {
        Call::Create(payment) => {
            let (payment_id, order_id) = (payment.payment_id.to_string(), payment.order_id.to_string());
            let (key, amount) = (payment.key("create"), (payment.amount_minor, payment.currency.as_str()));
            CallResponse::Intent(
                provider.create(&key, amount, &payment.payment_method, (&payment_id, &order_id)).await?,
            )
        }
        Call::Confirm(payment, intent_id) => {
            CallResponse::Intent(provider.confirm(&payment.key("confirm"), intent_id).await?)
        }
        Call::Capture(payment, intent_id) => {
            CallResponse::Intent(provider.capture(&payment.key("capture"), intent_id).await?)
        }
        Call::Cancel(payment, intent_id) => {
            CallResponse::Intent(provider.cancel(&payment.key("cancel"), intent_id).await?)
        }
        Call::Refund { refund, intent_id } => {
            CallResponse::Refund(provider.refund(&refund.key(), intent_id, refund.minor, refund.refund_id.0).await?)
        }
        Call::Get { intent_id } => CallResponse::Intent(provider.get(intent_id).await?),
        Call::GetRefund { reference, .. } => CallResponse::Refund(provider.get_refund(reference).await?),
        Call::ListRefunds { intent_id, .. } => CallResponse::Refunds(provider.list_refunds(intent_id).await?),
    })
}
