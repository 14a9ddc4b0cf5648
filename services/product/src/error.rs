use chassis::{Explain, Refusal, Unexpected};
use tonic::{Code, Status};

/// The field of a request, and what is wrong with it.
pub(crate) type Violation = (&'static str, String);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such product")]
    ProductNotFound,
    #[error("{sku} is another product's SKU")]
    SkuTaken { sku: String },
    #[error("the product is archived")]
    ProductArchived,
    /// All that is wrong with what was sent, by field.
    #[error("{}", describe(.0))]
    Invalid(Vec<Violation>),
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
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
            Self::ProductArchived => {
                Refusal::new(Code::FailedPrecondition, "PRODUCT_ARCHIVED", &text).precondition("product", text)
            }
            Self::Invalid(violations) => violations
                .into_iter()
                .fold(Refusal::new(Code::InvalidArgument, "REQUEST_INVALID", text), |refusal, (field, description)| {
                    refusal.field(field, description)
                }),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

fn describe(violations: &[Violation]) -> String {
    violations.iter().map(|(field, description)| format!("{field}: {description}")).collect::<Vec<_>>().join("; ")
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
