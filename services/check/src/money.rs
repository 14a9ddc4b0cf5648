//! I2: what the provider did is what our books say, once, and an order that was called off keeps nothing.
//!
//! The provider lists payment intents by the time when they were created. A range of orders is compared with the intents of the
//! time in which those orders were placed, whichever orders they are for. An intent of the range that was created later is read
//! by its id.

use std::collections::HashMap;
use std::ops;

use chassis::check::{Finding, Range};
use order::check::End;
use payment::check::{Books, Movements, Provider};

use super::{Error, Shop, progress};

/// How many intents that are read by their ids are compared at once.
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
    let (mut unseen, mut unnamed) = (HashMap::new(), Vec::new());
    for (order_id, intent_id) in payments {
        match intent_id {
            Some(intent_id) => drop(unseen.insert(intent_id, order_id)),
            None => unnamed.push(order_id),
        }
    }
    for (order_id, books) in payment::check::books(&shop.payment, &unnamed).await? {
        if books.authorized != 0 || books.captured != 0 {
            finding.violate(order_id, format!("money moved without an intent: ours {books:?}"));
        }
    }
    let (mut after, mut listed) = (None, 0);
    while !created.is_empty() {
        let page = provider.list(created, after.as_deref()).await.map_err(Error::Provider)?;
        listed += page.intents.len();
        progress::set(format!("I2: the provider listed {listed} intents of the time of {} orders", finding.count));
        for moved in &page.intents {
            // One that names another order, or none, says nothing about this payment.
            if moved.order_id.is_some() && unseen.get(&moved.intent_id) == moved.order_id.as_ref() {
                unseen.remove(&moved.intent_id);
            }
        }
        compare(shop, &page.intents, &mut finding).await?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let unseen: Vec<_> = unseen.into_iter().collect();
    for some in unseen.chunks(AT_ONCE) {
        let mut all = Vec::new();
        for (intent_id, order_id) in some {
            let nothing =
                || Movements { intent_id: intent_id.clone(), order_id: Some(*order_id), ..Movements::default() };
            all.push(provider.get(intent_id).await.map_err(Error::Provider)?.unwrap_or_else(nothing));
        }
        compare(shop, &all, &mut finding).await?;
    }
    Ok(finding)
}

async fn compare(shop: &Shop, all: &[Movements], finding: &mut Finding) -> Result<(), Error> {
    let orders: Vec<_> = all.iter().filter_map(|moved| moved.order_id).collect();
    let books = payment::check::books(&shop.payment, &orders).await?;
    let ends = order::check::ends(&shop.order, &orders, shop.as_of()).await?;
    for moved in all {
        let books = moved.order_id.and_then(|order| books.get(&order));
        finding.count += u64::from(books.is_none());
        if let Some(why) = judge(books, moved, moved.order_id.and_then(|order| ends.get(&order)).copied()) {
            let thing = moved.order_id.map_or_else(|| moved.intent_id.clone(), |order| order.to_string());
            finding.violate(thing, format!("{why}: ours {books:?}, the provider's {moved:?}"));
        }
    }
    Ok(())
}

/// What is wrong with what moved for an intent. `end`: what became of the order, if it did not change for a while.
pub(crate) fn judge(books: Option<&Books>, moved: &Movements, end: Option<End>) -> Option<&'static str> {
    let has_moved = moved.authorized != 0 || moved.captured != 0;
    let Some(books) = books else { return has_moved.then_some("nothing is known of it") };
    if books.intent_id.as_deref() != Some(&moved.intent_id) {
        let why = if moved.captured > 0 && books.captured > 0 {
            "captured more than once"
        } else {
            "moved beside the payment"
        };
        return has_moved.then_some(why);
    }
    let same = (books.authorized, books.captured, books.voided, books.refunded)
        == (moved.authorized, moved.captured, moved.voided, moved.refunded);
    let kept = moved.captured - moved.refunded - moved.refunding;
    let held = moved.authorized - moved.captured - moved.voided;
    if books.at_rest && !same {
        Some("the books differ")
    } else if end == Some(End::CalledOff) && (kept, held) != (0, 0) && !(books.refused && held == 0) {
        Some("called off, and not given back")
    } else {
        None
    }
}
