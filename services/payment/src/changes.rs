//! What a fact about a payment changes: its row, the ledger, its refund, and the event that is published. Pure, but for the
//! clock and its ids; [`crate::record`] writes the changes.

use chassis::{Clock, Unexpected};
use contracts::souk::payment::v1::payment_event::Event;
use contracts::souk::payment::v1::*;
use time::OffsetDateTime;

use crate::claim::Claimed;
use crate::conclude::Then;
use crate::decide::wants_work;
use crate::payment::Payment;
use crate::refund::{NewRefund, Refund, RefundState};
use crate::state::{Goal, State};

/// The actor of events without a request.
pub(crate) const OURSELVES: &str = "service:payment";
/// The actor of changes at the provider without a call of ours.
const PROVIDER: &str = "provider";
/// After how many failed refunds of an ended order only operators refund it.
const MAX_FAILED_REFUNDS: i64 = 10;

/// A new fact about a payment.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// Its goal is reached: nothing changes.
    GoalReached,
    /// A call begins, and the state says which.
    Begun(State),
    /// The call had no effect.
    NoEffect,
    /// The intent exists; no money moved.
    Created {
        intent_id: String,
    },
    Authorized,
    Declined {
        reason: &'static str,
    },
    Captured {
        minor: i64,
    },
    CaptureFailed {
        reason: &'static str,
    },
    /// The authorization was released, or there never was one.
    Voided,
    /// The amount was authorized, and released before the authorization was recorded.
    AuthorizedAndVoided,
    /// A refund of all that remains is added, because the order ended.
    RemainderReserved,
    /// The request for this refund begins.
    RefundBegun {
        refund: Box<Refund>,
    },
    /// The provider accepted the refund, and has not completed it.
    RefundUnderWay {
        refund: Box<Refund>,
    },
    Refunded {
        refund: Box<Refund>,
    },
    RefundFailed {
        refund: Box<Refund>,
        why: String,
    },
    /// A refund failed after it had succeeded: the money is ours again.
    RefundReversed {
        refund: Box<Refund>,
        why: String,
    },
    /// A refund that was made at the provider itself.
    RefundedElsewhere {
        reference: String,
        minor: i64,
    },
}

impl Fact {
    /// Whether it resets the backoff: a call that only begins, or had no effect, does not.
    fn is_progress(&self) -> bool {
        !matches!(self, Self::Begun(_) | Self::NoEffect | Self::RemainderReserved | Self::RefundBegun { .. })
    }
}

/// What is written, together or not at all.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The payment as it is from now on.
    pub(crate) payment: Payment,
    pub(crate) refund: Option<RefundChange>,
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) event: Option<Event>,
    /// Who caused the event.
    pub(crate) actor: String,
    pub(crate) due_at: Option<OffsetDateTime>,
    /// Whether the lease ends.
    pub(crate) ends_lease: bool,
    /// Whether the payment is compared with the provider at once.
    pub(crate) compare_now: bool,
    pub(crate) now: OffsetDateTime,
}

/// A refund as it is from now on.
#[derive(Debug)]
pub(crate) struct RefundChange {
    pub(crate) refund: Refund,
    /// Its state before. None: it is new.
    pub(crate) before: Option<RefundState>,
}

/// A movement of money between two accounts.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) kind: &'static str,
    pub(crate) debit: String,
    pub(crate) credit: String,
    pub(crate) minor: i64,
    pub(crate) reference: String,
}

impl Changes {
    /// Fails if the fact is not a legal step from the state of the payment.
    pub(crate) fn of(clock: &Clock, claimed: &Claimed, fact: &Fact, then: Then) -> Result<Self, Unexpected> {
        let now = clock.now();
        let mut changes = Self {
            payment: claimed.payment.clone(),
            refund: None,
            transfers: vec![],
            event: None,
            actor: OURSELVES.to_owned(),
            due_at: None,
            ends_lease: !matches!(then, Then::Call(_)),
            compare_now: false,
            now,
        };
        changes.apply(clock, claimed, fact)?;
        changes.payment.attempts = if fact.is_progress() { 0 } else { claimed.payment.attempts };
        changes.payment.version += i64::from(changes.event.is_some());
        changes.payment.updated_at = now;
        changes.due_at = match then {
            Then::Call(_) => Some(now),
            _ if !wants_work(&changes.payment) => None,
            Then::EndLease => Some(now),
            Then::EndLeaseUntil(until) => Some(claimed.next_refund_at.map_or(until, |next| next.clamp(now, until))),
        };
        // A refund that the provider refused may have been made at the provider itself.
        changes.compare_now = matches!((fact, then), (Fact::RefundFailed { .. }, Then::EndLeaseUntil(_)));
        Ok(changes)
    }

    fn apply(&mut self, clock: &Clock, claimed: &Claimed, fact: &Fact) -> Result<(), Unexpected> {
        let amount = self.payment.amount_minor;
        match fact {
            Fact::GoalReached => {}
            Fact::Begun(state) => self.payment.step_to(*state)?,
            Fact::NoEffect => self.payment.call += 1,
            Fact::Created { intent_id } => self.payment.intent_id = Some(intent_id.clone()),
            Fact::Authorized => {
                self.payment.step_to(State::Authorized)?;
                self.authorize(amount);
                self.publish(Event::PaymentAuthorized(PaymentAuthorized { amount: self.money(amount) }));
            }
            Fact::Declined { reason } => self.decline(reason)?,
            Fact::Captured { minor } => {
                self.payment.step_to(State::Captured)?;
                self.payment.captured_minor = *minor;
                self.transfer("CAPTURE", ("held", "revenue"), *minor);
                // A partial capture, made at the provider, released the remainder.
                if *minor < amount {
                    self.void(amount - minor);
                }
                self.publish(Event::PaymentCaptured(PaymentCaptured { amount: self.money(*minor) }));
            }
            Fact::CaptureFailed { reason } => {
                self.payment.step_to(State::Failed)?;
                self.payment.failure_reason = (*reason).to_owned();
                // The provider releases an authorization that it does not capture.
                self.void(amount);
                self.publish(Event::PaymentCaptureFailed(PaymentCaptureFailed { reason: (*reason).to_owned() }));
            }
            Fact::Voided => {
                let held = self.payment.state == State::Voiding;
                self.payment.step_to(State::Voided)?;
                if held {
                    self.void(amount);
                    self.publish(Event::PaymentVoided(PaymentVoided { amount: self.money(amount) }));
                }
            }
            Fact::AuthorizedAndVoided => {
                self.authorize(amount);
                self.void(amount);
                if self.payment.goal != Goal::Released {
                    return self.decline("PAYMENT_REFUSED");
                }
                self.payment.step_to(State::Voided)?;
                self.publish(Event::PaymentVoided(PaymentVoided { amount: self.money(amount) }));
            }
            Fact::RemainderReserved => {
                let (payment_id, minor) = (self.payment.payment_id, self.payment.unrefunded());
                let (actor, reason) = (OURSELVES, RefundReason::OrderEnded);
                let refund = Refund::new(clock, NewRefund { payment_id, minor, actor, reason });
                self.payment.refund_pending_minor += minor;
                self.refund = Some(RefundChange { refund, before: None });
            }
            Fact::RefundBegun { refund } => {
                self.change_refund(Refund { tried_at: Some(self.now), ..(**refund).clone() }, RefundState::Pending)
            }
            Fact::RefundUnderWay { refund } => self.change_refund((**refund).clone(), RefundState::Pending),
            Fact::Refunded { refund } => {
                self.payment.refund_pending_minor -= refund.minor;
                self.change_refund(Refund { state: RefundState::Done, ..(**refund).clone() }, RefundState::Pending);
                self.add_refunded(refund);
            }
            Fact::RefundFailed { refund, why } => {
                self.payment.refund_pending_minor -= refund.minor;
                self.fail_refund(claimed, refund, &code(why));
            }
            Fact::RefundReversed { refund, why } => {
                let (minor, code) = (refund.minor, code(why));
                self.payment.refunded_minor -= minor;
                self.fail_refund(claimed, refund, &code);
                let reference = refund.reference.clone().unwrap_or_default();
                self.transfer_of("REFUND_REVERSAL", (&self.customer(), "revenue"), minor, reference);
                let (amount, refund_id) = (self.money(minor), refund.refund_id.to_string());
                self.publish(Event::PaymentRefundFailed(PaymentRefundFailed { amount, refund_id, reason: code }));
                self.actor = PROVIDER.to_owned();
            }
            Fact::RefundedElsewhere { reference, minor } => {
                let (payment_id, minor) = (self.payment.payment_id, *minor);
                let (actor, reason) = (PROVIDER, RefundReason::AtProvider);
                let mut refund = Refund::new(clock, NewRefund { payment_id, minor, actor, reason });
                (refund.state, refund.reference) = (RefundState::Done, Some(reference.clone()));
                self.add_refunded(&refund);
                self.refund = Some(RefundChange { refund, before: None });
            }
        }
        Ok(())
    }

    fn decline(&mut self, reason: &str) -> Result<(), Unexpected> {
        self.payment.step_to(State::Declined)?;
        self.payment.failure_reason = reason.to_owned();
        self.publish(Event::PaymentDeclined(PaymentDeclined { reason: reason.to_owned() }));
        Ok(())
    }

    fn add_refunded(&mut self, refund: &Refund) {
        self.payment.refunded_minor += refund.minor;
        self.payment.refund_refusal.clear();
        let reference = refund.reference.clone().unwrap_or_default();
        self.transfer_of("REFUND", ("revenue", &self.customer()), refund.minor, reference);
        let (amount, refund_id) = (self.money(refund.minor), refund.refund_id.to_string());
        self.publish(Event::PaymentRefunded(PaymentRefunded { amount, refund_id }));
        self.actor.clone_from(&refund.actor);
    }

    /// The amount can be refunded again. A failed refund of an ended order is attempted again, unless the refusal is final: then
    /// only operators refund. Before its order ends, only an operator refunds, and sees the failure.
    fn fail_refund(&mut self, claimed: &Claimed, refund: &Refund, code: &str) {
        let failed = Refund { state: RefundState::Failed, failure_reason: code.to_owned(), ..refund.clone() };
        self.change_refund(failed, refund.state);
        let failed_refunds = claimed.failed_refunds + i64::from(refund.is_of_ended_order());
        let refusal = match code {
            _ if self.payment.goal != Goal::Released => "",
            "charge_disputed" | "refund_disputed_payment" | "charge_for_pending_refund_disputed" => "DISPUTED",
            "charge_already_refunded" => "ALREADY_REFUNDED",
            "expired_or_canceled_card" | "lost_or_stolen_card" => "CARD_CLOSED",
            _ if failed_refunds >= MAX_FAILED_REFUNDS => "REFUSED_AGAIN_AND_AGAIN",
            _ => "",
        };
        self.payment.refund_refusal = refusal.to_owned();
    }

    fn change_refund(&mut self, refund: Refund, before: RefundState) {
        let refund = Refund { updated_at: self.now, ..refund };
        self.refund = Some(RefundChange { refund, before: Some(before) });
    }

    fn authorize(&mut self, minor: i64) {
        self.transfer("AUTHORIZATION", (&self.customer(), "held"), minor);
    }

    fn void(&mut self, minor: i64) {
        self.transfer("VOID", ("held", &self.customer()), minor);
    }

    fn transfer(&mut self, kind: &'static str, accounts: (&str, &str), minor: i64) {
        let intent_id = self.payment.intent_id.clone().unwrap_or_default();
        self.transfer_of(kind, accounts, minor, intent_id);
    }

    fn transfer_of(&mut self, kind: &'static str, (debit, credit): (&str, &str), minor: i64, reference: String) {
        let (debit, credit) = (debit.to_owned(), credit.to_owned());
        self.transfers.push(Transfer { kind, debit, credit, minor, reference });
    }

    fn customer(&self) -> String {
        format!("customer:{}", self.payment.user_id)
    }

    fn money(&self, minor: i64) -> Option<contracts::souk::r#type::v1::Money> {
        Some(self.payment.money(minor))
    }

    fn publish(&mut self, event: Event) {
        self.event = Some(event);
    }
}

/// Only the code of a provider's error is stored and published.
fn code(why: &str) -> String {
    why.chars().filter(char::is_ascii_graphic).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::CallStatus;
    use crate::decide::tests::claimed;

    /// A provider that fails each call without an effect is called with a growing backoff.
    #[test]
    fn the_backoff_grows_until_a_call_has_an_effect() {
        let clock = Clock::fixed(OffsetDateTime::UNIX_EPOCH);
        let mut before = claimed(State::Authorizing, Goal::Authorized, CallStatus::Unknown);
        before.payment.attempts = 7;
        let attempts = |fact| {
            let changes = Changes::of(&clock, &before, &fact, Then::Call(CallStatus::NotSent)).expect("legal");
            changes.payment.attempts
        };
        assert_eq!(attempts(Fact::NoEffect), 7);
        assert_eq!(attempts(Fact::Created { intent_id: "pi_2".to_owned() }), 0);
        assert_eq!(attempts(Fact::Authorized), 0);
    }
}
