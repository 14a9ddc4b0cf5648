//! Writes intents into a new ledger: captured, and some of them refunded.

use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::command::{Confirmation, NewIntent};
use crate::intent::{CaptureMethod, Intent, IntentId, Refusal};
use crate::journal::{Journal, Record};
use crate::metadata::Metadata;
use crate::outcome::PaymentMethod;
use crate::refund::{Refund, RefundId};

pub struct Seed {
    pub intent_id: Uuid,
    /// The refund of the whole amount, if it was refunded.
    pub refund_id: Option<Uuid>,
    /// Unix milliseconds.
    pub created: u64,
    pub amount: u64,
    pub metadata: Vec<(String, String)>,
}

/// Writes the seeds, which are ordered oldest first, into a ledger that is empty and not open.
pub fn seed(data: &Path, seeds: impl Iterator<Item = Seed>) -> io::Result<()> {
    let mut journal = Journal::open(data, |_, _| {})?;
    for seed in seeds {
        let at = seed.created;
        for (intent, refund) in carry_out(seed).map_err(|refusal| io::Error::other(format!("{refusal:?}")))? {
            journal.append(&Record { at, key: None, intent, refund, refusal: None, broken: false })?;
        }
    }
    Ok(())
}

fn carry_out(seed: Seed) -> Result<Vec<(Intent, Option<Refund>)>, Refusal> {
    let (at, payment_method) = (seed.created, Some(PaymentMethod::Visa));
    let new = NewIntent {
        amount: seed.amount,
        currency: "eur".to_owned(),
        payment_method,
        capture_method: CaptureMethod::Automatic,
        description: None,
        metadata: Metadata(seed.metadata),
        confirm: None,
    };
    let mut intent = Intent { id: IntentId(seed.intent_id), ..Intent::new(&new, at) };
    intent.confirm(&Confirmation { payment_method, cardholder_present: false }, at)?;
    let mut records = vec![(intent.clone(), None)];
    if let Some(refund_id) = seed.refund_id {
        let (amount, status) = intent.refund(None)?;
        let refund = Refund {
            id: RefundId(refund_id),
            intent: intent.id,
            created: at,
            amount,
            reason: None,
            metadata: Metadata::default(),
            status,
            failure_reason: None,
        };
        records.push((intent, Some(refund)));
    }
    Ok(records)
}
