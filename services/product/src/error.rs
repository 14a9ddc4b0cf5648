use chassis::{Explain, Refusal, Unexpected};
use tonic::Code;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such product")]
    ProductNotFound,
    #[error("another product has the SKU {sku}")]
    SkuTaken { sku: String },
    #[error("the product is archived")]
    ProductArchived,
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::PRODUCT.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::ProductNotFound => Refusal::new(Code::NotFound, "PRODUCT_NOT_FOUND", text),
            Self::SkuTaken { sku } => {
                Refusal::new(Code::AlreadyExists, "SKU_TAKEN", &text).field("product.sku", text).with("sku", sku)
            }
            Self::ProductArchived => Refusal::precondition("PRODUCT_ARCHIVED", "product", text),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
