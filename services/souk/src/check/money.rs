//! I2: what the provider did is what our books say, once, and an order that was called off keeps nothing.
//!
//! Intents are told newest first, and by the seconds in which they were created. So a range of orders is compared with what was
//! created while they were placed, whosever it is; and what was created later for one of them is asked for by its name.

use std::collections::HashMap;
use std::ops;

use chassis::{Finding, Range};
use order::check::End;
use payment::check::{Books, Did, Provider};

use super::{Error, Shop, progress};

/// How many intents are compared at once that are asked for by their names.
const AT_ONCE: usize = 100;

pub(crate) async fn check(
    shop: &Shop,
    provider: &Provider,
    range: Range,
    created: &ops::Range<u64>,
) -> Result<Finding, Error> {
    let mut finding = Finding::new("I2", "orders at the provider");
    let payments = payment::check::intents(&shop.payment, range).await?;
    finding.count = payments.len() as u64;
    let mut unseen: HashMap<_, _> = payments.into_iter().filter_map(|(order, intent)| Some((intent?, order))).collect();
    let (mut after, mut told) = (None, 0);
    while !created.is_empty() {
        let page = provider.list(created, after.as_deref()).await.map_err(Error::Provider)?;
        told += page.all.len();
        progress::tell(format!("I2: the provider told of {told} intents of these {} orders", finding.count));
        for did in &page.all {
            unseen.remove(&did.intent_id);
        }
        compare(shop, &page.all, &mut finding).await?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let unseen: Vec<_> = unseen.into_iter().collect();
    for some in unseen.chunks(AT_ONCE) {
        let mut all = Vec::new();
        for (intent_id, order_id) in some {
            let nothing = || Did { intent_id: intent_id.clone(), order_id: Some(*order_id), ..Did::default() };
            all.push(provider.get(intent_id).await.map_err(Error::Provider)?.unwrap_or_else(nothing));
        }
        compare(shop, &all, &mut finding).await?;
    }
    Ok(finding)
}

async fn compare(shop: &Shop, all: &[Did], finding: &mut Finding) -> Result<(), Error> {
    let orders: Vec<_> = all.iter().filter_map(|did| did.order_id).collect();
    let books = payment::check::books(&shop.payment, &orders).await?;
    let ends = order::check::ends(&shop.order, &orders, shop.as_of()).await?;
    for did in all {
        let books = did.order_id.and_then(|order| books.get(&order));
        finding.count += u64::from(books.is_none());
        if let Some(why) = judge(books, did, did.order_id.and_then(|order| ends.get(&order)).copied()) {
            let thing = did.order_id.map_or_else(|| did.intent_id.clone(), |order| order.to_string());
            finding.violate(thing, format!("{why}: ours {books:?}, the provider's {did:?}"));
        }
    }
    Ok(())
}

/// What is wrong with what the provider did about an intent. `end`: what became of the order, if it did not change for a while.
pub(crate) fn judge(books: Option<&Books>, did: &Did, end: Option<End>) -> Option<&'static str> {
    let moved = did.authorized != 0 || did.captured != 0;
    let Some(books) = books else { return moved.then_some("nothing is known of it") };
    if books.intent_id.as_deref() != Some(&did.intent_id) {
        let why =
            if did.captured > 0 && books.captured > 0 { "captured more than once" } else { "moved beside the payment" };
        return moved.then_some(why);
    }
    let same = (books.authorized, books.captured, books.voided, books.refunded)
        == (did.authorized, did.captured, did.voided, did.refunded);
    let kept = did.captured - did.refunded - did.refunding;
    let held = did.authorized - did.captured - did.voided;
    if books.at_rest && !same {
        Some("the books differ")
    } else if end == Some(End::CalledOff) && (kept, held) != (0, 0) && !(books.refused && held == 0) {
        Some("called off, and not given back")
    } else {
        None
    }
}
