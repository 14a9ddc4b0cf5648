use chassis::{Explain, Refusal, Unexpected};
use tonic::Code;

use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such payment")]
    PaymentNotFound,
    #[error("a payment that is {} has nothing to refund", .state.name())]
    PaymentNotCaptured { state: State },
    #[error("exactly one of amount_minor and full_refund must be given")]
    RefundAmountUnclear,
    #[error("only {left} minor units can still be refunded")]
    RefundExceedsCapture { left: i64 },
    #[error("there is no such payment provider")]
    ProviderNotFound,
    #[error("the secret that signs webhooks is not configured")]
    WebhooksNotConfigured,
    #[error("the signature is not the provider's: {0}")]
    WebhookSignatureInvalid(&'static str),
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::PAYMENT.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::PaymentNotFound => Refusal::new(Code::NotFound, "PAYMENT_NOT_FOUND", text),
            Self::PaymentNotCaptured { state } => {
                Refusal::precondition("PAYMENT_NOT_CAPTURED", "payment", text).with("state", state.name())
            }
            Self::RefundAmountUnclear => Refusal::invalid("REQUEST_INVALID", ["amount_minor", "full_refund"], text),
            Self::RefundExceedsCapture { left } => {
                Refusal::precondition("REFUND_EXCEEDS_CAPTURE", "payment", text).with("left_minor", left)
            }
            Self::ProviderNotFound => Refusal::new(Code::NotFound, "PROVIDER_NOT_FOUND", text),
            Self::WebhooksNotConfigured => Refusal::new(Code::Unavailable, "WEBHOOKS_NOT_CONFIGURED", text),
            Self::WebhookSignatureInvalid(_) => Refusal::new(Code::Unauthenticated, "WEBHOOK_SIGNATURE_INVALID", text),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
