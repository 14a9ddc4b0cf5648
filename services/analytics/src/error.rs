use chassis::{Explain, Refusal, Unexpected};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Error {
    /// A field of the request is wrong in a way that the contract cannot express.
    pub(crate) fn field(field: &str, description: impl Into<String>) -> Self {
        Self::Chassis(chassis::Error::field(field, description))
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::ANALYTICS.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        match self {
            Self::Chassis(error) => error.explain(),
        }
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
