//! The JSON of objects and errors, as Stripe writes them.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::error::{Error, Problem};
use crate::http::ApiResponse;
use crate::intent::{Intent, Refusal, Status};
use crate::journal::Record;
use crate::outcome::{Decline, Operation, PaymentMethod};
use crate::refund::Refund;

impl Record {
    /// The response, the same when it is replayed.
    pub(crate) fn api_response(&self) -> ApiResponse {
        if self.broken {
            return Error::Broken.api_response();
        }
        match (&self.refusal, &self.refund) {
            (Some(refusal), _) => refusal.explain(&self.intent).api_response(),
            (None, Some(refund)) => ApiResponse::new(StatusCode::OK, refund.to_json(&self.intent)),
            (None, None) => ApiResponse::new(StatusCode::OK, self.intent.to_json()),
        }
    }
}

impl Intent {
    pub(crate) fn to_json(&self) -> Value {
        let next_action = match self.status {
            Status::RequiresAction => json!({"type": "use_stripe_sdk", "use_stripe_sdk": {}}),
            _ => Value::Null,
        };
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": self.held(),
            "amount_received": self.captured.amount,
            "canceled_at": self.canceled.as_ref().map(|canceled| canceled.at / 1_000),
            "cancellation_reason": self.canceled.as_ref().and_then(|canceled| canceled.reason.as_deref()),
            "capture_method": self.capture_method,
            "client_secret": null,
            "confirmation_method": "automatic",
            "created": self.created / 1_000,
            "currency": self.currency,
            "customer": null,
            "description": self.description,
            "last_payment_error": self.declined.map(|(decline, method)| decline_json(decline, method)),
            "latest_charge": self.was_charged().then(|| self.id.charge()),
            "livemode": false,
            "metadata": self.metadata,
            "next_action": next_action,
            "payment_method": self.payment_method,
            "payment_method_types": ["card"],
            "status": self.status,
        })
    }

    /// With the charge instead of its id, for `expand[]=latest_charge`.
    pub(crate) fn to_json_with_charge(&self) -> Value {
        let mut json = self.to_json();
        if self.was_charged() {
            json["latest_charge"] = self.charge_json();
        }
        json
    }

    pub(crate) fn charge_json(&self) -> Value {
        // A released hold counts as refunded, as at Stripe.
        let back = self.net_refunded() + self.refunding + self.voided.amount;
        json!({
            "id": self.id.charge(),
            "object": "charge",
            "amount": self.amount,
            "amount_captured": self.captured.amount,
            "amount_refunded": back,
            "captured": self.captured.amount > 0,
            "currency": self.currency,
            "disputed": self.is_disputed(),
            "paid": self.authorized.times > 0,
            "payment_intent": self.id,
            "refunded": back >= self.amount,
            "status": if self.authorized.times > 0 { "succeeded" } else { "failed" },
        })
    }

    pub(crate) fn dispute_json(&self) -> Value {
        json!({
            "id": format!("dp_{}", self.id.charge()),
            "object": "dispute",
            "amount": self.captured.amount,
            "charge": self.id.charge(),
            "currency": self.currency,
            "payment_intent": self.id,
            "reason": "fraudulent",
            "status": "needs_response",
        })
    }

    /// Whether a charge was attempted, successfully or not.
    fn was_charged(&self) -> bool {
        self.authorized.times > 0 || self.declined.is_some()
    }
}

impl Refund {
    pub(crate) fn to_json(&self, intent: &Intent) -> Value {
        let mut json = json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.intent.charge(),
            "created": self.created / 1_000,
            "currency": intent.currency,
            "metadata": self.metadata,
            "payment_intent": self.intent,
            "reason": self.reason,
            "status": self.status,
        });
        // Absent if there is none, as at Stripe.
        if let Some(why) = &self.failure_reason {
            json["failure_reason"] = json!(why);
        }
        json
    }
}

impl Refusal {
    fn explain(self, intent: &Intent) -> Problem {
        let problem = match self {
            Refusal::Declined(decline) => Problem {
                status: StatusCode::PAYMENT_REQUIRED,
                kind: "card_error",
                code: Some(decline.code()),
                decline_code: Some(decline.decline_code()),
                ..Problem::invalid_request(decline.message())
            },
            Refusal::UnexpectedState(operation) => Problem {
                code: Some("payment_intent_unexpected_state"),
                ..Problem::invalid_request(describe_state(operation, intent))
            },
            Refusal::ConfirmRefused => Problem {
                code: Some("payment_intent_incompatible_payment_method"),
                ..Problem::invalid_request("The payment method cannot be used with this PaymentIntent.")
            },
            Refusal::CaptureTooLarge => Problem {
                code: Some("amount_too_large"),
                param: Some("amount_to_capture".into()),
                ..Problem::invalid_request(format!(
                    "The amount to capture is greater than the {} which can be captured.",
                    intent.amount
                ))
            },
            Refusal::AlreadyRefunded => Problem {
                code: Some("charge_already_refunded"),
                ..Problem::invalid_request(format!("Charge {} has already been refunded.", intent.id.charge()))
            },
            Refusal::Disputed => Problem {
                code: Some("charge_disputed"),
                ..Problem::invalid_request(format!("Charge {} has been charged back.", intent.id.charge()))
            },
            Refusal::RefundTooLarge => Problem {
                code: Some("amount_too_large"),
                param: Some("amount".into()),
                ..Problem::invalid_request(format!(
                    "Refund amount is greater than the unrefunded amount on charge ({}).",
                    intent.unrefunded()
                ))
            },
        };
        Problem { intent: Some(intent.to_json()), ..problem }
    }
}

fn decline_json(decline: Decline, method: PaymentMethod) -> Value {
    json!({
        "type": "card_error",
        "code": decline.code(),
        "decline_code": decline.decline_code(),
        "message": decline.message(),
        "payment_method": {"id": method, "object": "payment_method", "type": "card"},
    })
}

fn describe_state(operation: Operation, intent: &Intent) -> String {
    let done = match operation {
        Operation::Create => "created",
        Operation::Confirm => "confirmed",
        Operation::Capture => "captured",
        Operation::Cancel => "canceled",
        Operation::Refund => "refunded",
    };
    if intent.status.allows(operation) {
        return format!("This PaymentIntent could not be {done} because it is missing a payment method.");
    }
    let allowing: Vec<_> = Status::allowing(operation).iter().map(|status| status.name()).collect();
    format!(
        "This PaymentIntent could not be {done} because it has a status of {}. Only a PaymentIntent with one of the \
         following statuses may be {done}: {}.",
        intent.status.name(),
        allowing.join(", ")
    )
}
