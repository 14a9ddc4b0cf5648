use chassis::{Explain, Refusal, Unexpected};
use tonic::Code;

use crate::category::{DEEPEST, MOST};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such product")]
    ProductNotFound,
    #[error("another product has the SKU {sku}")]
    SkuTaken { sku: String },
    #[error("the product is archived")]
    ProductArchived,
    #[error("there is no such category")]
    CategoryNotFound,
    /// One that a request names beside what it is about.
    #[error("there is no such category")]
    CategoryUnknown { field: &'static str },
    #[error("the parent has a category of this name")]
    CategoryNameTaken,
    #[error("a category cannot be below itself")]
    CategoryCycle,
    #[error("the tree would have more than {} levels", DEEPEST)]
    CategoryTooDeep,
    #[error("there are {} categories", MOST)]
    CategoriesTooMany,
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
            Self::CategoryNotFound => Refusal::new(Code::NotFound, "CATEGORY_NOT_FOUND", text),
            Self::CategoryUnknown { field } => {
                Refusal::precondition("CATEGORY_UNKNOWN", field, text.clone()).field(field, text)
            }
            Self::CategoryNameTaken => {
                Refusal::new(Code::AlreadyExists, "CATEGORY_NAME_TAKEN", &text).field("category.name", text)
            }
            Self::CategoryCycle => Refusal::precondition("CATEGORY_CYCLE", "category.parent_id", text),
            Self::CategoryTooDeep => Refusal::precondition("CATEGORY_TOO_DEEP", "category.parent_id", text),
            Self::CategoriesTooMany => Refusal::new(Code::ResourceExhausted, "CATEGORIES_TOO_MANY", text),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
