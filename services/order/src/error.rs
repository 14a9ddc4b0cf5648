use chassis::{Explain, Refusal, Unexpected};
use contracts::money::{Invalid, MAX_MINOR};
use contracts::souk::r#type::v1::Money;
use tonic::{Code, Status};

use crate::order::IllegalStep;
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such order")]
    OrderNotFound,
    #[error("the product is unknown or not for sale any more")]
    ProductUnavailable { fields: Vec<String> },
    #[error("the items are priced in more than one currency")]
    CurrencyMixed,
    #[error("the total is not 1 to {MAX_MINOR} minor units")]
    TotalOutOfRange,
    #[error("the total is {} {} by now, and {} {} was expected", .actual.minor, .actual.currency, .expected.minor, .expected.currency)]
    PriceChanged { expected: Money, actual: Money },
    #[error("an order that is {} cannot be cancelled", .state.name())]
    OrderNotCancellable { state: State },
    #[error("an order that is {} cannot be fulfilled", .state.name())]
    OrderNotFulfillable { state: State },
    #[error("the payment is not captured yet")]
    PaymentNotCaptured,
    #[error(transparent)]
    StepIllegal(#[from] IllegalStep),
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::ORDER.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        let precondition = |reason, state: State| {
            Refusal::new(Code::FailedPrecondition, reason, &text)
                .precondition("order", &text)
                .with("state", state.name())
        };
        Ok(match self {
            Self::OrderNotFound => Refusal::new(Code::NotFound, "ORDER_NOT_FOUND", text),
            Self::ProductUnavailable { fields } => {
                let refusal = Refusal::new(Code::InvalidArgument, "PRODUCT_UNAVAILABLE", &text);
                fields.into_iter().fold(refusal, |refusal, field| refusal.field(field, &text))
            }
            Self::CurrencyMixed => Refusal::new(Code::InvalidArgument, "CURRENCY_MIXED", &text).field("items", text),
            Self::TotalOutOfRange => {
                Refusal::new(Code::InvalidArgument, "TOTAL_OUT_OF_RANGE", &text).field("items", text)
            }
            Self::PriceChanged { expected, actual } => Refusal::new(Code::FailedPrecondition, "PRICE_CHANGED", &text)
                .precondition("expected_total", &text)
                .with("expected_currency", expected.currency)
                .with("expected_minor", expected.minor)
                .with("actual_currency", actual.currency)
                .with("actual_minor", actual.minor),
            Self::OrderNotCancellable { state } => precondition("ORDER_NOT_CANCELLABLE", state),
            Self::OrderNotFulfillable { state } => precondition("ORDER_NOT_FULFILLABLE", state),
            Self::PaymentNotCaptured => precondition("PAYMENT_NOT_CAPTURED", State::Confirmed),
            Self::StepIllegal(IllegalStep { state, .. }) => precondition("ORDER_STEP_ILLEGAL", state),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Mixed | Invalid::Currency => Self::CurrencyMixed,
            Invalid::Amount => Self::TotalOutOfRange,
        }
    }
}

impl From<Unexpected> for Error {
    fn from(error: Unexpected) -> Self {
        Self::Chassis(error.into())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Chassis(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        chassis::rpc::error::status(error)
    }
}
