//! The state of the provider. A call is atomic: it changes a copy of the intent, writes that to the journal, then applies it
//! in memory. Movements are derived from the changes of an intent's tallies, so the ledger and the intents cannot disagree.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::command::{Command, Request};
use crate::error::Error;
use crate::http::ApiResponse;
use crate::idempotency::Keys;
use crate::intent::{Intent, IntentId, Refusal, Tally};
use crate::journal::{Journal, Position, Record};
use crate::outcome::{PaymentMethod, Trouble};
use crate::refund::{Refund, RefundId, RefundStatus};
use crate::webhook::{Change, Webhooks};

pub(crate) struct Ledger {
    journal: Journal,
    state: State,
    pub(crate) webhooks: Option<Webhooks>,
}

/// The replayed journal.
#[derive(Default)]
struct State {
    intents: Vec<Intent>,
    intent_at: HashMap<IntentId, usize>,
    refunds: Vec<Refund>,
    refund_at: HashMap<RefundId, usize>,
    refunds_of: HashMap<IntentId, Vec<usize>>,
    movements: Vec<Movement>,
    keys: Keys,
}

/// One movement of money; its number is its position in the list, from 1.
pub(crate) struct Movement {
    pub(crate) kind: &'static str,
    pub(crate) intent: IntentId,
    pub(crate) refund: Option<RefundId>,
    pub(crate) attempt: u32,
    pub(crate) amount: u64,
    pub(crate) at: u64,
}

pub(crate) enum Started {
    Replay(ApiResponse),
    Done(Executed),
    Slow(Duration),
}

pub(crate) struct Executed {
    pub(crate) response: ApiResponse,
    pub(crate) trouble: Option<Trouble>,
    /// A refund whose status changes later by itself.
    pub(crate) changes_later: Option<RefundId>,
}

impl Ledger {
    pub(crate) fn open(data: &Path) -> io::Result<Ledger> {
        let mut state = State::default();
        let journal = Journal::open(data, |record, position| state.apply(record, position))?;
        Ok(Ledger { journal, state, webhooks: None })
    }

    /// Replays or executes a call, or returns how long to wait before [`Ledger::finish`]; the key is in use meanwhile.
    pub(crate) fn start(&mut self, request: &Request) -> Result<Started, Error> {
        if let Some(key) = &request.key
            && let Some(position) = self.state.keys.find(key)?
        {
            return Ok(Started::Replay(self.journal.read(position)?.api_response().replayed()));
        }
        match self.slowness(&request.command) {
            None => Ok(Started::Done(self.execute(request)?)),
            Some(wait) => {
                if let Some(key) = &request.key {
                    self.state.keys.claim(key);
                }
                Ok(Started::Slow(wait))
            }
        }
    }

    pub(crate) fn finish(&mut self, request: &Request) -> Result<Executed, Error> {
        let executed = self.execute(request);
        if let (Err(_), Some(key)) = (&executed, &request.key) {
            self.state.keys.release(key);
        }
        executed
    }

    pub(crate) fn intent(&self, id: IntentId) -> Result<&Intent, Error> {
        Ok(&self.state.intents[self.index_of(id)?])
    }

    /// The number of older intents.
    pub(crate) fn index_of(&self, id: IntentId) -> Result<usize, Error> {
        let place = self.state.intent_at.get(&id).copied();
        place.ok_or(Error::NotFound { what: "payment_intent", param: "intent", id: id.to_string() })
    }

    pub(crate) fn refund(&self, id: RefundId) -> Result<&Refund, Error> {
        let place = self.state.refund_at.get(&id);
        place.map(|&at| &self.state.refunds[at]).ok_or(Error::NotFound {
            what: "refund",
            param: "id",
            id: id.to_string(),
        })
    }

    /// The refunds of an intent, newest first.
    pub(crate) fn refunds(&self, id: IntentId) -> impl Iterator<Item = &Refund> {
        let places = self.state.refunds_of.get(&id).into_iter().flatten().rev();
        places.map(|&at| &self.state.refunds[at])
    }

    /// The refunds whose status changes later by itself.
    pub(crate) fn refunds_that_change(&self) -> Vec<RefundId> {
        let changing = self.state.refunds.iter().filter(|refund| self.next_status(refund).is_some());
        changing.map(|refund| refund.id).collect()
    }

    /// The status that a refund gets later by itself, if any.
    fn next_status(&self, refund: &Refund) -> Option<RefundStatus> {
        match (self.intent(refund.intent).ok()?.payment_method?, refund.status) {
            (PaymentMethod::RefundPending, RefundStatus::Pending) => Some(RefundStatus::Succeeded),
            (PaymentMethod::RefundFailsLater, RefundStatus::Succeeded) => Some(RefundStatus::Failed),
            _ => None,
        }
    }

    /// Changes a refund to its next status.
    pub(crate) fn advance_refund(&mut self, id: RefundId) -> Result<(), Error> {
        let Some(next) = self.next_status(self.refund(id)?) else { return Ok(()) };
        let why = (next == RefundStatus::Failed).then(|| "expired_or_canceled_card".to_owned());
        self.set_refund(id, next, why)
    }

    /// Sets the status of a refund, as the bank or the customer would cause it.
    pub(crate) fn set_refund(
        &mut self,
        id: RefundId,
        next: RefundStatus,
        failure_reason: Option<String>,
    ) -> Result<(), Error> {
        let mut refund = self.refund(id)?.clone();
        let before = refund.status;
        if !before.may_become(next) {
            let why = format!("A refund that is {} cannot become {}.", before.name(), next.name());
            return Err(Error::ParameterInvalid { param: "status", why });
        }
        (refund.status, refund.failure_reason) = (next, failure_reason);
        let mut intent = self.intent(refund.intent)?.clone();
        intent.change_refund(refund.amount, before, next);
        let record = Record { at: now(), key: None, intent, refund: Some(refund), refusal: None, broken: false };
        let position = self.journal.append(&record)?;
        self.apply(record, position);
        Ok(())
    }

    /// Oldest first.
    pub(crate) fn intents(&self) -> &[Intent] {
        &self.state.intents
    }

    /// Oldest first.
    pub(crate) fn movements(&self) -> &[Movement] {
        &self.state.movements
    }

    fn slowness(&self, command: &Command) -> Option<Duration> {
        let method = match command {
            Command::Create(new) => new.payment_method,
            Command::Confirm(id, with) => with.payment_method.or(self.intent(*id).ok()?.payment_method),
            Command::Capture(id, _) | Command::Cancel(id, _) => self.intent(*id).ok()?.payment_method,
            Command::Refund(new) => self.intent(new.intent).ok()?.payment_method,
        };
        method?.slowness(command.operation())
    }

    fn execute(&mut self, request: &Request) -> Result<Executed, Error> {
        let (mut record, failed) = self.decide(request, now())?;
        let trouble = match (failed, record.refusal, record.intent.payment_method) {
            (None, None, Some(method)) => method.trouble(request.command.operation()),
            _ => failed,
        };
        // A call that hangs after its effect succeeds when it is repeated; other trouble is an error for ever.
        record.broken = failed.is_some() || trouble == Some(Trouble::Error);
        let position = self.journal.append(&record)?;
        let (response, refund) = (record.api_response(), record.refund.clone());
        self.apply(record, position);
        let changes_later = refund.filter(|refund| self.next_status(refund).is_some()).map(|refund| refund.id);
        Ok(Executed { response, trouble, changes_later })
    }

    /// Applies a record, and sends webhooks about its changes.
    fn apply(&mut self, record: Record, position: Position) {
        let Some(webhooks) = self.webhooks.clone() else { return self.state.apply(record, position) };
        let (id, at) = (record.intent.id, record.at);
        let refund = record.refund.as_ref().map(|refund| refund.id);
        let before = self.intent(id).ok().cloned();
        let status = refund.and_then(|id| self.refund(id).ok()).map(|refund| refund.status);
        self.state.apply(record, position);
        let Ok(after) = self.intent(id) else { return };
        let refund = refund.and_then(|id| self.refund(id).ok()).map(|refund| (refund, status));
        webhooks.publish(&Change { before: before.as_ref(), after, refund, at });
    }

    /// The effect of the call, or how it fails without one.
    fn decide(&self, request: &Request, at: u64) -> Result<(Record, Option<Trouble>), Error> {
        let record =
            |intent, refund, refusal| Record { at, key: request.key.clone(), intent, refund, refusal, broken: false };
        if let Some(id) = request.command.intent() {
            let (intent, failed) = self.change(id, |intent| intent.fail_first(request.command.operation()))?;
            if failed.is_some() {
                return Ok((record(intent, None, None), failed));
            }
        }
        let mut refund = None;
        let (intent, result): (Intent, Result<(), Refusal>) = match &request.command {
            Command::Create(new) => {
                let mut intent = Intent::new(new, at);
                let result = new.confirm.as_ref().map_or(Ok(()), |with| intent.confirm(with, at));
                (intent, result)
            }
            Command::Confirm(id, with) => self.change(*id, |intent| intent.confirm(with, at))?,
            Command::Capture(id, amount) => self.change(*id, |intent| intent.capture(*amount, at))?,
            Command::Cancel(id, reason) => self.change(*id, |intent| intent.cancel(reason.clone(), at))?,
            Command::Refund(new) => self.change(new.intent, |intent| {
                let (amount, status) = intent.refund(new.amount)?;
                let (id, reason, metadata) = (RefundId::new(), new.reason.clone(), new.metadata.clone());
                let failure_reason = (status == RefundStatus::Failed).then(|| "unknown".to_owned());
                let intent = intent.id;
                refund = Some(Refund { id, intent, created: at, amount, reason, metadata, status, failure_reason });
                Ok(())
            })?,
        };
        Ok((record(intent, refund, result.err()), None))
    }

    fn change<R>(&self, id: IntentId, change: impl FnOnce(&mut Intent) -> R) -> Result<(Intent, R), Error> {
        let mut intent = self.intent(id)?.clone();
        let result = change(&mut intent);
        Ok((intent, result))
    }
}

impl State {
    fn apply(&mut self, record: Record, position: Position) {
        let Record { at, key, intent, refund, .. } = record;
        let known = self.intent_at.get(&intent.id).copied();
        let gains = gains(known.map(|at| &self.intents[at]), &intent);
        for (kind, Tally { times: attempt, amount }) in gains {
            let refund = refund.as_ref().filter(|_| kind.starts_with("refund")).map(|refund| refund.id);
            self.movements.push(Movement { kind, intent: intent.id, refund, attempt, amount, at });
        }
        match known {
            Some(at) => self.intents[at] = intent,
            None => {
                self.intent_at.insert(intent.id, self.intents.len());
                self.intents.push(intent);
            }
        }
        if let Some(refund) = refund {
            match self.refund_at.get(&refund.id) {
                Some(&at) => self.refunds[at] = refund,
                None => {
                    self.refund_at.insert(refund.id, self.refunds.len());
                    self.refunds_of.entry(refund.intent).or_default().push(self.refunds.len());
                    self.refunds.push(refund);
                }
            }
        }
        if let Some(key) = key {
            self.keys.store(&key, position);
        }
    }
}

/// The movements between two states of an intent: kind, number of movements of this kind so far, and amount.
fn gains(before: Option<&Intent>, after: &Intent) -> impl Iterator<Item = (&'static str, Tally)> + use<> {
    let tallies =
        |intent: &Intent| [intent.authorized, intent.captured, intent.voided, intent.refunded, intent.refund_failed];
    let before = before.map(tallies).unwrap_or_default();
    let kinds = ["authorized", "captured", "voided", "refunded", "refund_failed"];
    kinds.into_iter().zip(before).zip(tallies(after)).filter_map(|((kind, before), after)| {
        let gained = Tally { times: after.times, amount: after.amount - before.amount };
        (after.times > before.times).then_some((kind, gained))
    })
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set to after 1970");
    since.as_millis() as u64
}
