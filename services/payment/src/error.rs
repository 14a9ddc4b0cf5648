use chassis::{Explain, Refusal, Unexpected};
use tonic::{Code, Status};

use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such payment")]
    PaymentNotFound,
    #[error("a payment that is {} has nothing to give back", .state.name())]
    PaymentNotCaptured { state: State },
    #[error("exactly one of amount_minor and full_refund is given")]
    RefundAmountUnclear,
    #[error("{left} minor units are not given back yet")]
    RefundExceedsCapture { left: i64 },
    #[error("there is no such payment provider")]
    ProviderNotFound,
    #[error("the secret that signs webhooks is not configured")]
    WebhooksNotConfigured,
    #[error("the signature is not the provider's: {0}")]
    WebhookSignatureInvalid(&'static str),
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::PAYMENT.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::PaymentNotFound => Refusal::new(Code::NotFound, "PAYMENT_NOT_FOUND", text),
            Self::PaymentNotCaptured { state } => Refusal::new(Code::FailedPrecondition, "PAYMENT_NOT_CAPTURED", &text)
                .precondition("payment", text)
                .with("state", state.name()),
            Self::RefundAmountUnclear => Refusal::new(Code::InvalidArgument, "REQUEST_INVALID", &text)
                .field("amount_minor", &text)
                .field("full_refund", text),
            Self::RefundExceedsCapture { left } => {
                Refusal::new(Code::FailedPrecondition, "REFUND_EXCEEDS_CAPTURE", &text)
                    .precondition("payment", text)
                    .with("left_minor", left)
            }
            Self::ProviderNotFound => Refusal::new(Code::NotFound, "PROVIDER_NOT_FOUND", text),
            Self::WebhooksNotConfigured => Refusal::new(Code::Unavailable, "WEBHOOKS_NOT_CONFIGURED", text),
            Self::WebhookSignatureInvalid(_) => Refusal::new(Code::Unauthenticated, "WEBHOOK_SIGNATURE_INVALID", text),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Chassis(error.into())
    }
}

impl From<Unexpected> for Error {
    fn from(error: Unexpected) -> Self {
        Self::Chassis(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        chassis::rpc::error::status(error)
    }
}
