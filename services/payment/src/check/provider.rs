//! The movements of money at the provider, in its own record.

use std::ops::Range;
use std::time::Duration;

use chassis::Backoff;
use sqlx::PgPool;
use uuid::Uuid;

use crate::budget::{Budget, Rates};
use crate::stripe::{CallError, Intent, RefundStatus, Response, Status, Stripe};

/// A page of intents takes longer than a call about one.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a read without a response is repeated, and after which time if the budget of calls does not say.
const TRIES: u32 = 20;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The provider, for reading only.
pub struct Provider {
    stripe: Stripe,
}

/// What moved for one payment intent, in minor units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Movements {
    pub intent_id: String,
    /// None: it is not of an order of ours.
    pub order_id: Option<Uuid>,
    pub authorized: i64,
    pub captured: i64,
    pub voided: i64,
    pub refunded: i64,
    /// In refunds that are pending.
    pub refunding: i64,
}

/// Some of all payment intents.
pub struct Page {
    pub intents: Vec<Movements>,
    /// The intent after which the next page begins, if there is one.
    pub next: Option<String>,
}

impl Provider {
    /// `calls`: the rate that this process and all replicas share, see `PAYMENT_PROVIDER_RATE`.
    pub fn new(url: &str, key: &str, calls: u32, db: PgPool) -> Result<Self, String> {
        // The rate of comparisons is not used here.
        let budget = Budget::new(db, Rates { calls, comparisons: 1 });
        Ok(Self { stripe: Stripe::new(url, key, TIMEOUT, budget)? })
    }

    /// Intents that were created in these seconds of Unix time, newest first: a page of them, behind the intent `after`.
    pub async fn list(&self, created: &Range<u64>, after: Option<&str>) -> Result<Page, String> {
        let intents = match self.with_retries(async || self.stripe.list_intents(created, after).await).await? {
            Response::Done(intents) => intents,
            refusal => return Err(format!("the list of payment intents: {refusal:?}")),
        };
        let (next, mut page) = (intents.next().map(str::to_owned), Vec::new());
        for intent in intents.into_vec() {
            page.push(self.movements(intent).await?);
        }
        Ok(Page { intents: page, next })
    }

    /// One intent. None: the provider does not know it.
    pub async fn get(&self, intent_id: &str) -> Result<Option<Movements>, String> {
        match self.with_retries(async || self.stripe.get(intent_id).await).await? {
            Response::Done(intent) => Ok(Some(self.movements(intent).await?)),
            Response::Refused(code) if code == "resource_missing" => Ok(None),
            refusal => Err(format!("{intent_id}: {refusal:?}")),
        }
    }

    async fn movements(&self, intent: Intent) -> Result<Movements, String> {
        let authorized = if intent.was_authorized() { intent.amount } else { 0 };
        let voided = match intent.status {
            Status::Canceled => authorized,
            // A partial capture releases the remainder.
            Status::Succeeded => authorized - intent.amount_received,
            _ => 0,
        };
        let (refunded, refunding) = self.refunds(&intent).await?;
        let (order_id, captured) = (intent.order_id(), intent.amount_received);
        Ok(Movements { intent_id: intent.id, order_id, authorized, captured, voided, refunded, refunding })
    }

    /// The refunded and the pending amount. A charge has only their sum, so the refunds themselves are read.
    async fn refunds(&self, intent: &Intent) -> Result<(i64, i64), String> {
        if intent.refunded() == 0 {
            return Ok((0, 0));
        }
        let refunds = match intent.listed_refunds() {
            Some(refunds) => refunds.to_vec(),
            None => match self.with_retries(async || self.stripe.list_refunds(&intent.id).await).await? {
                Response::Done(refunds) => refunds,
                refusal => return Err(format!("the refunds of {}: {refusal:?}", intent.id)),
            },
        };
        let sum = |status| refunds.iter().filter(|it| it.status == status).map(|it| it.amount).sum();
        Ok((sum(RefundStatus::Succeeded), sum(RefundStatus::UnderWay)))
    }

    /// Reads can be repeated, and give way to payments.
    async fn with_retries<T>(
        &self,
        read: impl AsyncFn() -> Result<Response<T>, CallError>,
    ) -> Result<Response<T>, String> {
        let (mut tries, backoff) = (0, Backoff::new(RETRY_AFTER, RETRY_AFTER * 8));
        loop {
            self.stripe.budget.wait_for_payments().await.map_err(|error| format!("the budget of calls: {error}"))?;
            let error = match read().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            tries += 1;
            if tries == TRIES {
                return Err(format!("{error}, {TRIES} times"));
            }
            let pause = if let CallError::NotSent(not_sent) = &error { not_sent.pause } else { None };
            tokio::time::sleep(pause.unwrap_or_else(|| backoff.after(tries))).await;
        }
    }
}
