//! The commands of POST requests, parsed.

use crate::error::Error;
use crate::idempotency::Key;
use crate::intent::{CaptureMethod, IntentId};
use crate::metadata::Metadata;
use crate::outcome::{Operation, PaymentMethod};
use crate::params::Params;

/// Stripe's minimum for most currencies, in minor units.
const SMALLEST_CHARGE: u64 = 50;

pub(crate) struct Request {
    pub(crate) key: Option<Key>,
    pub(crate) command: Command,
}

pub(crate) enum Command {
    Create(NewIntent),
    Confirm(IntentId, Confirmation),
    Capture(IntentId, Option<u64>),
    Cancel(IntentId, Option<String>),
    Refund(NewRefund),
}

pub(crate) struct NewIntent {
    pub(crate) amount: u64,
    pub(crate) currency: String,
    pub(crate) payment_method: Option<PaymentMethod>,
    pub(crate) capture_method: CaptureMethod,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) confirm: Option<Confirmation>,
}

pub(crate) struct Confirmation {
    pub(crate) payment_method: Option<PaymentMethod>,
    /// Whether the cardholder can authenticate: neither `off_session` nor `error_on_requires_action` was set.
    pub(crate) cardholder_present: bool,
}

pub(crate) struct NewRefund {
    pub(crate) intent: IntentId,
    pub(crate) amount: Option<u64>,
    pub(crate) reason: Option<String>,
    pub(crate) metadata: Metadata,
}

impl Command {
    pub(crate) fn operation(&self) -> Operation {
        match self {
            Command::Create(NewIntent { confirm: None, .. }) => Operation::Create,
            Command::Create(_) | Command::Confirm(..) => Operation::Confirm,
            Command::Capture(..) => Operation::Capture,
            Command::Cancel(..) => Operation::Cancel,
            Command::Refund(_) => Operation::Refund,
        }
    }

    /// The existing intent that it changes, if any.
    pub(crate) fn intent(&self) -> Option<IntentId> {
        match self {
            Command::Create(_) => None,
            Command::Confirm(id, _) | Command::Capture(id, _) | Command::Cancel(id, _) => Some(*id),
            Command::Refund(new) => Some(new.intent),
        }
    }
}

impl NewIntent {
    pub(crate) fn parse(params: &mut Params) -> Result<NewIntent, Error> {
        let amount = params.take_amount("amount")?.ok_or(Error::ParameterMissing("amount"))?;
        if amount < SMALLEST_CHARGE {
            return Err(Error::AmountTooSmall { param: "amount", least: SMALLEST_CHARGE });
        }
        let currency = params.take("currency").ok_or(Error::ParameterMissing("currency"))?;
        if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_lowercase()) {
            let why = format!("Invalid currency: {currency}. It must be a three-letter ISO code in lower case.");
            return Err(Error::ParameterInvalid { param: "currency", why });
        }
        let capture_method = match params.take_one_of("capture_method", &["automatic", "manual"])?.as_deref() {
            Some("manual") => CaptureMethod::Manual,
            _ => CaptureMethod::Automatic,
        };
        // Without a list, Stripe offers what the account accepts.
        params.take_one_of("payment_method_types[]", &["card"])?;
        let confirmed = params.take_flag("confirm")?;
        let confirmation = Confirmation::parse(params)?;
        Ok(NewIntent {
            amount,
            currency,
            payment_method: confirmation.payment_method,
            capture_method,
            description: params.take_text("description", 1_000)?,
            metadata: params.take_metadata()?,
            confirm: confirmed.then_some(confirmation),
        })
    }
}

impl Confirmation {
    pub(crate) fn parse(params: &mut Params) -> Result<Confirmation, Error> {
        let payment_method = match params.take("payment_method") {
            None => None,
            Some(name) => Some(PaymentMethod::parse(&name).ok_or(Error::NotFound {
                what: "PaymentMethod",
                param: "payment_method",
                id: name,
            })?),
        };
        let off_session = params.take_flag("off_session")?;
        let error_on_requires_action = params.take_flag("error_on_requires_action")?;
        Ok(Confirmation { payment_method, cardholder_present: !off_session && !error_on_requires_action })
    }
}

pub(crate) fn parse_cancellation(params: &mut Params) -> Result<Option<String>, Error> {
    params.take_one_of("cancellation_reason", &["duplicate", "fraudulent", "requested_by_customer", "abandoned"])
}

impl NewRefund {
    pub(crate) fn parse(params: &mut Params) -> Result<NewRefund, Error> {
        let intent = params.take("payment_intent").ok_or(Error::ParameterMissing("payment_intent"))?;
        Ok(NewRefund {
            intent: parse_intent_id(intent, "payment_intent")?,
            amount: params.take_amount("amount")?,
            reason: params.take_one_of("reason", &["duplicate", "fraudulent", "requested_by_customer"])?,
            metadata: params.take_metadata()?,
        })
    }
}

/// A malformed id gets the same response as an unknown one, as from Stripe.
pub(crate) fn parse_intent_id(id: String, param: &'static str) -> Result<IntentId, Error> {
    IntentId::parse(&id).ok_or(Error::NotFound { what: "payment_intent", param, id })
}
