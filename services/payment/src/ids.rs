//! Ids, each of one kind of thing.

use std::fmt::{Display, Formatter, Result};

use uuid::Uuid;

macro_rules! ids {
    ($($name:ident)*) => {
        $(
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
            #[sqlx(transparent)]
            pub(crate) struct $name(pub(crate) Uuid);

            impl Display for $name {
                fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
                    self.0.fmt(formatter)
                }
            }
        )*
    };
}

ids!(PaymentId OrderId RefundId);
