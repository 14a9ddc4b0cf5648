use chassis::{Explain, Refusal, Unexpected};
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no stock record for {sku}")]
    SkuNotFound { sku: String },
    #[error("{sku} would fall below zero: {available} are available")]
    StockShort { sku: String, available: i64 },
    #[error("this order has no reservation")]
    ReservationNotFound,
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::INVENTORY.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::SkuNotFound { sku } => Refusal::new(Code::NotFound, "SKU_NOT_FOUND", text).with("sku", sku),
            Self::StockShort { sku, available } => Refusal::new(Code::FailedPrecondition, "STOCK_SHORT", &text)
                .precondition(&sku, text)
                .with("sku", &sku)
                .with("available", available),
            Self::ReservationNotFound => Refusal::new(Code::NotFound, "RESERVATION_NOT_FOUND", text),
            Self::Chassis(error) => return error.explain(),
        })
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
