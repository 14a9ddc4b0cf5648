//! What a notification tells, how it is delivered, and what became of it.

use contracts::souk::notification::v1::{NotificationChannel, NotificationKind, NotificationState};

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Kind {
    OrderConfirmed,
    OrderFulfilled,
    OrderRejected,
    OrderPaymentFailed,
    OrderCancelled,
    OrderExpired,
    ResetPassword,
    VerifyEmail,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::OrderConfirmed,
        Self::OrderFulfilled,
        Self::OrderRejected,
        Self::OrderPaymentFailed,
        Self::OrderCancelled,
        Self::OrderExpired,
        Self::ResetPassword,
        Self::VerifyEmail,
    ];

    /// The names of some. A later release, which runs beside this one during an update, may know more.
    pub(crate) fn names(which: impl Fn(Self) -> bool) -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|kind| which(*kind)).map(Self::name).collect()
    }

    /// Such as `ORDER_CONFIRMED`, in the table and in the contract.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("NOTIFICATION_KIND_")
    }

    /// Whether it is about an order, and not about an account.
    pub(crate) fn is_of_order(self) -> bool {
        !matches!(self, Self::ResetPassword | Self::VerifyEmail)
    }

    pub(crate) fn to_proto(self) -> NotificationKind {
        match self {
            Self::OrderConfirmed => NotificationKind::OrderConfirmed,
            Self::OrderFulfilled => NotificationKind::OrderFulfilled,
            Self::OrderRejected => NotificationKind::OrderRejected,
            Self::OrderPaymentFailed => NotificationKind::OrderPaymentFailed,
            Self::OrderCancelled => NotificationKind::OrderCancelled,
            Self::OrderExpired => NotificationKind::OrderExpired,
            Self::ResetPassword => NotificationKind::ResetPassword,
            Self::VerifyEmail => NotificationKind::VerifyEmail,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Channel {
    Email,
    Sms,
}

impl Channel {
    /// Such as `EMAIL`.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("NOTIFICATION_CHANNEL_")
    }

    pub(crate) fn to_proto(self) -> NotificationChannel {
        match self {
            Self::Email => NotificationChannel::Email,
            Self::Sms => NotificationChannel::Sms,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Pending,
    Delivered,
    Refused,
    Dropped,
    GivenUp,
}

impl State {
    /// Such as `GIVEN_UP`.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("NOTIFICATION_STATE_")
    }

    pub(crate) fn to_proto(self) -> NotificationState {
        match self {
            Self::Pending => NotificationState::Pending,
            Self::Delivered => NotificationState::Delivered,
            Self::Refused => NotificationState::Refused,
            Self::Dropped => NotificationState::Dropped,
            Self::GivenUp => NotificationState::GivenUp,
        }
    }
}
