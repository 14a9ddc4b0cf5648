use chassis::{Explain, Refusal, Unexpected};
use tonic::Code;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such notification")]
    NotificationNotFound,
    #[error("everybody gets this notification, or there is none of this kind over this channel")]
    PreferenceFixed { index: usize },
    #[error("{kind} by e-mail would end: end_order_mails must say that this is meant")]
    ConfirmationRequired { kind: &'static str },
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::NOTIFICATION.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::NotificationNotFound => Refusal::new(Code::NotFound, "NOTIFICATION_NOT_FOUND", text),
            Self::PreferenceFixed { index } => {
                Refusal::invalid("PREFERENCE_FIXED", [format!("preferences[{index}]")], text)
            }
            Self::ConfirmationRequired { .. } => Refusal::invalid("CONFIRMATION_REQUIRED", ["end_order_mails"], text),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
