use chassis::{Explain, Refusal, Unexpected};
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such payment")]
    PaymentNotFound,
    #[error("webhooks are not taken in this version")]
    NotImplemented,
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = "souk.payment";

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::PaymentNotFound => Refusal::new(Code::NotFound, "PAYMENT_NOT_FOUND", text),
            Self::NotImplemented => Refusal::new(Code::Unimplemented, "NOT_IMPLEMENTED", text),
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
        chassis::error::status(error)
    }
}
