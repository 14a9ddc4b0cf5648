use chassis::{Explain, Refusal, Unexpected};
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such product")]
    ProductNotFound,
    #[error("{sku} is another product's SKU")]
    SkuTaken { sku: String },
    #[error("the product is archived")]
    ProductArchived,
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = "souk.product";

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::ProductNotFound => Refusal::new(Code::NotFound, "PRODUCT_NOT_FOUND", text),
            Self::SkuTaken { sku } => {
                Refusal::new(Code::AlreadyExists, "SKU_TAKEN", &text).field("product.sku", text).with("sku", sku)
            }
            Self::ProductArchived => {
                Refusal::new(Code::FailedPrecondition, "PRODUCT_ARCHIVED", &text).precondition("product", text)
            }
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
        chassis::error::status(error)
    }
}
