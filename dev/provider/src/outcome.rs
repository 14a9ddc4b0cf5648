//! What a payment method makes happen: Stripe's test names, and ours for trouble.

use std::time::Duration;

use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};

/// How long a slow call takes.
pub const SLOW: Duration = Duration::from_secs(3);
/// How long a connection hangs before the caller gets 504.
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
    /// Confirming answers `requires_action`, or a decline if the caller says that the cardholder is absent.
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
    /// Confirming is refused as a request, and the intent stays as it was.
    #[serde(rename = "pm_souk_confirm_refused")]
    ConfirmRefused,
    /// Capturing is refused for good; the intent is canceled, so that no money can be kept.
    #[serde(rename = "pm_souk_capture_fails")]
    CaptureFails,
    /// Capturing is refused, and the amount stays held.
    #[serde(rename = "pm_souk_capture_declined")]
    CaptureDeclined,
    /// Confirming and capturing take effect, and the call that did it hangs for [`HANG`], then answers 504. A
    /// repeat under the same key is answered at once.
    #[serde(rename = "pm_souk_timeout_after_success")]
    TimeoutAfterSuccess,
    /// Confirming and capturing take effect, and the call that did it answers 500, now and whenever it is repeated.
    #[serde(rename = "pm_souk_error_after_success")]
    ErrorAfterSuccess,
    /// The first confirmation and the first capture have no effect and answer 500, now and whenever they are repeated.
    #[serde(rename = "pm_souk_error_without_effect")]
    ErrorWithoutEffect,
    /// The first confirmation hangs like one that times out, and overtakes the next cancellation: it takes effect just
    /// before it.
    #[serde(rename = "pm_souk_late_confirm")]
    LateConfirm,
    /// Refunding takes effect, and the call that did it hangs for [`HANG`].
    #[serde(rename = "pm_souk_refund_timeout")]
    RefundTimeout,
    /// Refunding takes effect, the call that did it hangs for [`HANG`], and no list names the refund.
    #[serde(rename = "pm_souk_refund_unlisted")]
    RefundUnlisted,
    /// The first refund has no effect and answers 500, now and whenever it is repeated.
    #[serde(rename = "pm_souk_refund_error")]
    RefundError,
    /// A refund is pending for [`SLOW`] before it succeeds.
    #[serde(rename = "pm_card_pendingRefund")]
    RefundPending,
    /// A refund is pending until it is changed by a request, see `POST /_refunds/{id}`.
    #[serde(rename = "pm_souk_refund_waits")]
    RefundWaits,
    /// A refund succeeds, and fails [`SLOW`] later: the card is closed, and the money is the merchant's again.
    #[serde(rename = "pm_card_refundFail")]
    RefundFailsLater,
    /// The first refund fails at once; nothing goes back.
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

/// What goes wrong with a call, besides its effect or instead of it.
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

    /// What its caller meets although the call had its effect.
    pub(crate) fn trouble(self, operation: Operation) -> Option<Trouble> {
        match (self, operation) {
            (PaymentMethod::TimeoutAfterSuccess, Operation::Confirm | Operation::Capture) => Some(Trouble::Hang),
            (PaymentMethod::ErrorAfterSuccess, Operation::Confirm | Operation::Capture) => Some(Trouble::Error),
            (PaymentMethod::RefundTimeout | PaymentMethod::RefundUnlisted, Operation::Refund) => Some(Trouble::Hang),
            _ => None,
        }
    }

    /// What the first call of its kind meets instead of its effect.
    pub(crate) fn stumble(self, operation: Operation) -> Option<Trouble> {
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
