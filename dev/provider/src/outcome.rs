//! The outcome that a payment method selects: Stripe's test payment methods, and ours for trouble.

use std::time::Duration;

use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};

/// How long a slow call takes.
pub const SLOW: Duration = Duration::from_secs(3);
/// How long a call hangs before its caller gets 504.
pub(crate) const HANG: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PaymentMethod {
    #[serde(rename = "pm_card_visa")]
    Visa,
    #[serde(rename = "pm_card_mastercard")]
    Mastercard,
    #[serde(rename = "pm_card_amex")]
    Amex,
    #[serde(rename = "pm_card_chargeDeclined")]
    Declined,
    #[serde(rename = "pm_card_chargeDeclinedInsufficientFunds")]
    InsufficientFunds,
    /// Confirming results in `requires_action`, or in a decline if the cardholder is absent.
    #[serde(rename = "pm_card_authenticationRequired")]
    AuthenticationRequired,
    /// Confirming takes [`SLOW`].
    #[serde(rename = "pm_souk_slow")]
    Slow,
    /// Capturing takes [`SLOW`].
    #[serde(rename = "pm_souk_slow_capture")]
    SlowCapture,
    /// Refunding takes [`SLOW`].
    #[serde(rename = "pm_souk_slow_refund")]
    SlowRefund,
    /// Confirming is refused as an invalid request, and the intent stays unchanged.
    #[serde(rename = "pm_souk_confirm_refused")]
    ConfirmRefused,
    /// Capturing is refused, and the intent is canceled, which releases the hold.
    #[serde(rename = "pm_souk_capture_fails")]
    CaptureFails,
    /// Capturing is refused, and the hold stays.
    #[serde(rename = "pm_souk_capture_declined")]
    CaptureDeclined,
    /// Confirming and capturing take effect, but the call hangs for [`HANG`], then gets 504. A retry under the same key gets
    /// the response at once.
    #[serde(rename = "pm_souk_timeout_after_success")]
    TimeoutAfterSuccess,
    /// Confirming and capturing take effect, but the call and its retries under the same key get 500.
    #[serde(rename = "pm_souk_error_after_success")]
    ErrorAfterSuccess,
    /// The first confirmation and the first capture have no effect; they and their retries under the same key get 500.
    #[serde(rename = "pm_souk_error_without_effect")]
    ErrorWithoutEffect,
    /// The first confirmation hangs for [`HANG`], and takes effect just before the next cancellation.
    #[serde(rename = "pm_souk_late_confirm")]
    LateConfirm,
    /// Refunding takes effect, but the call hangs for [`HANG`].
    #[serde(rename = "pm_souk_refund_timeout")]
    RefundTimeout,
    /// Refunding takes effect, but the call hangs for [`HANG`], and no list contains the refund.
    #[serde(rename = "pm_souk_refund_unlisted")]
    RefundUnlisted,
    /// The first refund has no effect; it and its retries under the same key get 500.
    #[serde(rename = "pm_souk_refund_error")]
    RefundError,
    /// A refund is pending for [`SLOW`] before it succeeds.
    #[serde(rename = "pm_card_pendingRefund")]
    RefundPending,
    /// A refund is pending until `POST /_refunds/{id}` changes it.
    #[serde(rename = "pm_souk_refund_waits")]
    RefundWaits,
    /// A refund succeeds, and fails [`SLOW`] later as the card is closed.
    #[serde(rename = "pm_card_refundFail")]
    RefundFailsLater,
    /// The first refund fails at once.
    #[serde(rename = "pm_souk_refund_fails")]
    RefundFails,
    /// The charge is disputed as soon as it is captured: refunds are refused.
    #[serde(rename = "pm_card_createDispute")]
    Disputed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decline {
    Generic,
    InsufficientFunds,
    AuthenticationRequired,
    CaptureRefused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Create,
    Confirm,
    Capture,
    Cancel,
    Refund,
}

/// How a call fails, with or without its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Hang,
    Error,
}

impl PaymentMethod {
    pub(crate) fn parse(name: &str) -> Option<PaymentMethod> {
        let name: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        PaymentMethod::deserialize(name).ok()
    }

    pub(crate) fn slowness(self, operation: Operation) -> Option<Duration> {
        match (self, operation) {
            (PaymentMethod::Slow, Operation::Confirm)
            | (PaymentMethod::SlowCapture, Operation::Capture)
            | (PaymentMethod::SlowRefund, Operation::Refund) => Some(SLOW),
            _ => None,
        }
    }

    /// How a call fails although it had its effect.
    pub(crate) fn trouble(self, operation: Operation) -> Option<Trouble> {
        match (self, operation) {
            (PaymentMethod::TimeoutAfterSuccess, Operation::Confirm | Operation::Capture) => Some(Trouble::Hang),
            (PaymentMethod::ErrorAfterSuccess, Operation::Confirm | Operation::Capture) => Some(Trouble::Error),
            (PaymentMethod::RefundTimeout | PaymentMethod::RefundUnlisted, Operation::Refund) => Some(Trouble::Hang),
            _ => None,
        }
    }

    /// How the first call of its kind fails without an effect.
    pub(crate) fn fails_first(self, operation: Operation) -> Option<Trouble> {
        match (self, operation) {
            (PaymentMethod::ErrorWithoutEffect, Operation::Confirm | Operation::Capture)
            | (PaymentMethod::RefundError, Operation::Refund) => Some(Trouble::Error),
            (PaymentMethod::LateConfirm, Operation::Confirm) => Some(Trouble::Hang),
            _ => None,
        }
    }
}

impl Decline {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Decline::AuthenticationRequired => "authentication_required",
            Decline::Generic | Decline::InsufficientFunds | Decline::CaptureRefused => "card_declined",
        }
    }

    pub(crate) fn decline_code(self) -> &'static str {
        match self {
            Decline::Generic => "generic_decline",
            Decline::InsufficientFunds => "insufficient_funds",
            Decline::AuthenticationRequired => "authentication_required",
            Decline::CaptureRefused => "do_not_honor",
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Decline::Generic => "Your card was declined.",
            Decline::InsufficientFunds => "Your card has insufficient funds.",
            Decline::AuthenticationRequired => "Your card was declined. This transaction requires authentication.",
            Decline::CaptureRefused => "The card's bank refused the capture; the PaymentIntent was canceled.",
        }
    }
}
