use chassis::{Explain, Refusal, Unexpected};
use tonic::Code;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no stock record for {sku}")]
    SkuNotFound { sku: String },
    #[error("{sku} would fall below zero: {available} are available")]
    StockShort { sku: String, available: i64 },
    #[error("this order has no reservation")]
    ReservationNotFound,
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::INVENTORY.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::SkuNotFound { sku } => Refusal::new(Code::NotFound, "SKU_NOT_FOUND", text).with("sku", sku),
            Self::StockShort { sku, available } => {
                Refusal::precondition("STOCK_SHORT", &sku, text).with("sku", &sku).with("available", available)
            }
            Self::ReservationNotFound => Refusal::new(Code::NotFound, "RESERVATION_NOT_FOUND", text),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
