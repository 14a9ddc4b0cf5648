//! A payment intent and its state transitions. Pure: no clock, no journal, no HTTP.
//!
//! Invariants, for calls in any order: it is captured at most once, `captured + voided <= authorized`, and
//! `refunded - refund_failed <= captured`.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::{Confirmation, NewIntent};
use crate::metadata::Metadata;
use crate::outcome::{Decline, Operation, PaymentMethod, Trouble};
use crate::refund::RefundStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct IntentId(pub(crate) Uuid);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: IntentId,
    /// Unix milliseconds.
    pub(crate) created: u64,
    pub(crate) amount: u64,
    pub(crate) currency: String,
    pub(crate) capture_method: CaptureMethod,
    pub(crate) payment_method: Option<PaymentMethod>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) status: Status,
    /// The last decline, and the payment method that it removed from the intent.
    pub(crate) declined: Option<(Decline, PaymentMethod)>,
    pub(crate) canceled: Option<Cancellation>,
    pub(crate) authorized: Tally,
    pub(crate) captured: Tally,
    pub(crate) voided: Tally,
    pub(crate) refunded: Tally,
    /// The part of `refunded` whose refunds failed afterwards.
    #[serde(default)]
    pub(crate) refund_failed: Tally,
    /// The amount of pending refunds.
    #[serde(default)]
    pub(crate) refunding: u64,
    /// The operations whose first call failed without an effect.
    #[serde(default, rename = "stumbled", skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed_once: Vec<Operation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaptureMethod {
    Automatic,
    Manual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    RequiresCapture,
    Canceled,
    Succeeded,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cancellation {
    /// Unix milliseconds.
    pub(crate) at: u64,
    pub(crate) reason: Option<String>,
}

/// The number and the sum of one kind of movement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) times: u32,
    pub(crate) amount: u64,
}

/// The call was refused definitely; stored under the idempotency key like a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    Declined(Decline),
    UnexpectedState(Operation),
    ConfirmRefused,
    CaptureTooLarge,
    AlreadyRefunded,
    Disputed,
    RefundTooLarge,
}

impl Intent {
    pub(crate) fn new(new: &NewIntent, now: u64) -> Intent {
        let status = match new.payment_method {
            Some(_) => Status::RequiresConfirmation,
            None => Status::RequiresPaymentMethod,
        };
        Intent {
            id: IntentId(Uuid::now_v7()),
            created: now,
            amount: new.amount,
            currency: new.currency.clone(),
            capture_method: new.capture_method,
            payment_method: new.payment_method,
            description: new.description.clone(),
            metadata: new.metadata.clone(),
            status,
            declined: None,
            canceled: None,
            authorized: Tally::default(),
            captured: Tally::default(),
            voided: Tally::default(),
            refunded: Tally::default(),
            refund_failed: Tally::default(),
            refunding: 0,
            failed_once: Vec::new(),
        }
    }

    /// How this call fails without an effect, if it is the first of its kind and the payment method says so.
    pub(crate) fn fail_first(&mut self, operation: Operation) -> Option<Trouble> {
        let trouble = self.payment_method?.fails_first(operation)?;
        let first = self.status.allows(operation) && !self.failed_once.contains(&operation);
        first.then(|| {
            self.failed_once.push(operation);
            trouble
        })
    }

    pub(crate) fn confirm(&mut self, how: &Confirmation, now: u64) -> Result<(), Refusal> {
        let Some(method) = how.payment_method.or(self.payment_method) else {
            return Err(Refusal::UnexpectedState(Operation::Confirm));
        };
        if !self.status.allows(Operation::Confirm) {
            return Err(Refusal::UnexpectedState(Operation::Confirm));
        }
        self.payment_method = Some(method);
        match method {
            PaymentMethod::Declined => return Err(self.decline(Decline::Generic, method)),
            PaymentMethod::InsufficientFunds => return Err(self.decline(Decline::InsufficientFunds, method)),
            PaymentMethod::AuthenticationRequired if how.cardholder_present => {
                self.status = Status::RequiresAction;
                return Ok(());
            }
            PaymentMethod::AuthenticationRequired => {
                return Err(self.decline(Decline::AuthenticationRequired, method));
            }
            PaymentMethod::ConfirmRefused => return Err(Refusal::ConfirmRefused),
            _ => {}
        }
        self.authorize();
        match self.capture_method {
            CaptureMethod::Manual => Ok(()),
            CaptureMethod::Automatic => self.capture(None, now),
        }
    }

    pub(crate) fn capture(&mut self, amount: Option<u64>, now: u64) -> Result<(), Refusal> {
        if !self.status.allows(Operation::Capture) {
            return Err(Refusal::UnexpectedState(Operation::Capture));
        }
        let amount = amount.unwrap_or(self.amount);
        if amount > self.amount {
            return Err(Refusal::CaptureTooLarge);
        }
        if self.payment_method == Some(PaymentMethod::CaptureFails) {
            self.declined = Some((Decline::CaptureRefused, PaymentMethod::CaptureFails));
            self.void(Cancellation { at: now, reason: Some("automatic".into()) });
            return Err(Refusal::Declined(Decline::CaptureRefused));
        }
        if self.payment_method == Some(PaymentMethod::CaptureDeclined) {
            return Err(Refusal::Declined(Decline::CaptureRefused));
        }
        self.captured.add(amount);
        self.voided.add(self.held());
        self.status = Status::Succeeded;
        Ok(())
    }

    pub(crate) fn cancel(&mut self, reason: Option<String>, now: u64) -> Result<(), Refusal> {
        if !self.status.allows(Operation::Cancel) {
            return Err(Refusal::UnexpectedState(Operation::Cancel));
        }
        if self.payment_method == Some(PaymentMethod::LateConfirm)
            && self.status == Status::RequiresConfirmation
            && self.failed_once.contains(&Operation::Confirm)
        {
            self.authorize();
        }
        self.void(Cancellation { at: now, reason });
        Ok(())
    }

    /// Refunds this amount, or all that is left. Returns the amount and the status of the refund.
    pub(crate) fn refund(&mut self, amount: Option<u64>) -> Result<(u64, RefundStatus), Refusal> {
        if !self.status.allows(Operation::Refund) {
            return Err(Refusal::UnexpectedState(Operation::Refund));
        }
        if self.is_disputed() {
            return Err(Refusal::Disputed);
        }
        let left = self.unrefunded();
        if left == 0 {
            return Err(Refusal::AlreadyRefunded);
        }
        let amount = amount.unwrap_or(left);
        if amount > left {
            return Err(Refusal::RefundTooLarge);
        }
        let status = match self.payment_method {
            Some(PaymentMethod::RefundFails) if !self.failed_once.contains(&Operation::Refund) => {
                self.failed_once.push(Operation::Refund);
                RefundStatus::Failed
            }
            Some(PaymentMethod::RefundPending | PaymentMethod::RefundWaits) => {
                self.refunding += amount;
                RefundStatus::Pending
            }
            _ => {
                self.refunded.add(amount);
                RefundStatus::Succeeded
            }
        };
        Ok((amount, status))
    }

    /// One of its refunds changed its status.
    pub(crate) fn change_refund(&mut self, amount: u64, from: RefundStatus, to: RefundStatus) {
        match (from.is_pending(), to.is_pending()) {
            (true, true) => {}
            (true, false) => {
                self.refunding -= amount;
                self.refunded.add(if to == RefundStatus::Succeeded { amount } else { 0 });
            }
            (false, _) => self.refund_failed.add(amount),
        }
    }

    /// Whether the charge is disputed, which it is as soon as it is captured, if the payment method says so.
    pub(crate) fn is_disputed(&self) -> bool {
        self.payment_method == Some(PaymentMethod::Disputed) && self.captured.times > 0
    }

    /// Refunds that succeeded and did not fail afterwards.
    pub(crate) fn net_refunded(&self) -> u64 {
        self.refunded.amount - self.refund_failed.amount
    }

    /// Captured, and neither refunded nor in a pending refund.
    pub(crate) fn unrefunded(&self) -> u64 {
        self.captured.amount - self.net_refunded() - self.refunding
    }

    /// Authorized, and neither captured nor voided.
    pub(crate) fn held(&self) -> u64 {
        self.authorized.amount - self.captured.amount - self.voided.amount
    }

    fn authorize(&mut self) {
        self.declined = None;
        self.authorized.add(self.amount);
        self.status = Status::RequiresCapture;
    }

    fn decline(&mut self, decline: Decline, method: PaymentMethod) -> Refusal {
        self.status = Status::RequiresPaymentMethod;
        self.payment_method = None;
        self.declined = Some((decline, method));
        Refusal::Declined(decline)
    }

    fn void(&mut self, cancellation: Cancellation) {
        self.voided.add(self.held());
        self.status = Status::Canceled;
        self.canceled = Some(cancellation);
    }
}

impl Status {
    pub(crate) fn allows(self, operation: Operation) -> bool {
        Status::allowing(operation).contains(&self)
    }

    pub(crate) fn allowing(operation: Operation) -> &'static [Status] {
        use Status::{RequiresAction, RequiresCapture, RequiresConfirmation, RequiresPaymentMethod, Succeeded};
        match operation {
            Operation::Create => &[],
            Operation::Confirm => &[RequiresPaymentMethod, RequiresConfirmation, RequiresAction],
            Operation::Capture => &[RequiresCapture],
            Operation::Cancel => &[RequiresPaymentMethod, RequiresConfirmation, RequiresAction, RequiresCapture],
            Operation::Refund => &[Succeeded],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::RequiresPaymentMethod => "requires_payment_method",
            Status::RequiresConfirmation => "requires_confirmation",
            Status::RequiresAction => "requires_action",
            Status::RequiresCapture => "requires_capture",
            Status::Canceled => "canceled",
            Status::Succeeded => "succeeded",
        }
    }
}

impl Tally {
    /// An amount of 0 is not a movement.
    fn add(&mut self, amount: u64) {
        if amount > 0 {
            self.times += 1;
            self.amount += amount;
        }
    }
}

impl IntentId {
    pub(crate) fn parse(id: &str) -> Option<IntentId> {
        id.strip_prefix("pi_").and_then(|uuid| Uuid::try_parse(uuid).ok()).map(IntentId)
    }

    /// The id of the intent's only charge.
    pub(crate) fn charge(self) -> String {
        format!("ch_{}", self.0.simple())
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pi_{}", self.0.simple())
    }
}

impl From<IntentId> for String {
    fn from(id: IntentId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for IntentId {
    type Error = String;

    fn try_from(id: String) -> Result<IntentId, String> {
        IntentId::parse(&id).ok_or_else(|| format!("{id} is not the id of a payment intent"))
    }
}
