//! I2: the movements at the provider match the ledger, there is one capture per order, and an order that was not sold keeps no
//! money.
//!
//! The provider lists payment intents by creation time. A range of orders is compared with all intents that were created while
//! those orders were placed. An intent of the range's orders that was created later is read by its id.

use std::collections::HashMap;
use std::ops;

use chassis::check::{Finding, Range};
use order::check::Settled;
use payment::check::{LedgerSums, Movements, Provider};

use crate::{Error, Sources, progress};

/// How many intents are compared at once, of those that are read by id.
const AT_ONCE: usize = 100;

pub(crate) async fn check(
    sources: &Sources,
    provider: &Provider,
    range: Range,
    created: &ops::Range<u64>,
) -> Result<Finding, Error> {
    let mut finding = Finding::new("I2", "orders at the provider");
    let payments = payment::check::intents(&sources.payment, range).await?;
    finding.checked = payments.len() as u64;
    let (mut unlisted, mut unnamed) = (HashMap::new(), Vec::new());
    for (order_id, intent_id) in payments {
        match intent_id {
            Some(intent_id) => drop(unlisted.insert(intent_id, order_id)),
            None => unnamed.push(order_id),
        }
    }
    for (order_id, books) in payment::check::ledger_sums(&sources.payment, &unnamed).await? {
        if books.authorized != 0 || books.captured != 0 {
            finding.violate(order_id, format!("money moved without an intent: the ledger says {books:?}"));
        }
    }
    let (mut after, mut listed) = (None, 0);
    while !created.is_empty() {
        let page = provider.list(created, after.as_deref()).await.map_err(Error::Provider)?;
        listed += page.intents.len();
        progress::set(format!("I2: the provider listed {listed} intents of the time of {} orders", finding.checked));
        for moved in &page.intents {
            // An intent that names another order, or none, is not evidence about this payment.
            if moved.order_id.is_some() && unlisted.get(&moved.intent_id) == moved.order_id.as_ref() {
                unlisted.remove(&moved.intent_id);
            }
        }
        compare_all(sources, &page.intents, &mut finding).await?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let unlisted: Vec<_> = unlisted.into_iter().collect();
    for chunk in unlisted.chunks(AT_ONCE) {
        let mut all = Vec::new();
        for (intent_id, order_id) in chunk {
            let nothing =
                || Movements { intent_id: intent_id.clone(), order_id: Some(*order_id), ..Movements::default() };
            all.push(provider.get(intent_id).await.map_err(Error::Provider)?.unwrap_or_else(nothing));
        }
        compare_all(sources, &all, &mut finding).await?;
    }
    Ok(finding)
}

async fn compare_all(sources: &Sources, all: &[Movements], finding: &mut Finding) -> Result<(), Error> {
    let orders: Vec<_> = all.iter().filter_map(|moved| moved.order_id).collect();
    let books = payment::check::ledger_sums(&sources.payment, &orders).await?;
    let settled = order::check::settled(&sources.order, &orders, sources.as_of()).await?;
    for moved in all {
        let books = moved.order_id.and_then(|order| books.get(&order));
        finding.checked += u64::from(books.is_none());
        if let Some(why) = compare(books, moved, moved.order_id.and_then(|order| settled.get(&order)).copied()) {
            let id = moved.order_id.map_or_else(|| moved.intent_id.clone(), |order| order.to_string());
            finding.violate(id, format!("{why}: the ledger says {books:?}, the provider {moved:?}"));
        }
    }
    Ok(())
}

/// What is wrong with the movements of an intent. `settled`: how the order ended, if it is settled.
pub(crate) fn compare(books: Option<&LedgerSums>, moved: &Movements, settled: Option<Settled>) -> Option<&'static str> {
    let has_moved = moved.authorized != 0 || moved.captured != 0;
    let Some(books) = books else { return has_moved.then_some("the ledger has no payment for it") };
    if books.intent_id.as_deref() != Some(&moved.intent_id) {
        let why = if moved.captured > 0 && books.captured > 0 {
            "captured more than once"
        } else {
            "money moved by another intent than the payment's"
        };
        return has_moved.then_some(why);
    }
    let same = (books.authorized, books.captured, books.voided, books.refunded)
        == (moved.authorized, moved.captured, moved.voided, moved.refunded);
    let kept = moved.captured - moved.refunded - moved.refunding;
    let held = moved.authorized - moved.captured - moved.voided;
    if !books.is_due && !same {
        Some("the ledger differs")
    } else if settled == Some(Settled::Unsold) && (kept, held) != (0, 0) && !(books.refused && held == 0) {
        Some("the order was not sold, but its money is kept")
    } else {
        None
    }
}
