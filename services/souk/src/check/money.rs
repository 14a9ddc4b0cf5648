//! I2: what the provider did is what our books say, once, and an order that was called off keeps nothing.

use std::collections::HashMap;

use chassis::Finding;
use order::check::End;
use payment::check::Books;
use serde::Deserialize;
use uuid::Uuid;

use super::Error;

/// What the provider says of one order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Theirs {
    pub(crate) authorized: i64,
    pub(crate) captured: i64,
    pub(crate) voided: i64,
    pub(crate) refunded: i64,
    pub(crate) captures: u32,
}

#[derive(Deserialize)]
struct Page {
    intents: Vec<Intent>,
    next: u64,
    more: bool,
}

#[derive(Deserialize)]
struct Intent {
    metadata: HashMap<String, String>,
    authorized: i64,
    captured: i64,
    voided: i64,
    refunded: i64,
    capture_calls_with_effect: u32,
}

/// By order, however many intents it has.
pub(crate) async fn fetch(url: &str) -> Result<HashMap<Uuid, Theirs>, Error> {
    let (mut all, mut after) = (HashMap::<Uuid, Theirs>::new(), 0);
    loop {
        let page = reqwest::get(format!("{url}/_summary?after={after}")).await;
        let page = page.map_err(|error| Error::Provider(error.to_string()))?;
        let page = page.bytes().await.map_err(|error| Error::Provider(error.to_string()))?;
        let page: Page = serde_json::from_slice(&page).map_err(|error| Error::Provider(error.to_string()))?;
        for intent in page.intents {
            let order = intent.metadata.get("order_id").and_then(|id| Uuid::parse_str(id).ok());
            let sum = all.entry(order.unwrap_or_default()).or_default();
            sum.authorized += intent.authorized;
            sum.captured += intent.captured;
            sum.voided += intent.voided;
            sum.refunded += intent.refunded;
            sum.captures += intent.capture_calls_with_effect;
        }
        if !page.more {
            return Ok(all);
        }
        after = page.next;
    }
}

/// `ends`: what became of the orders that did not change for a while.
pub(crate) fn compare(
    ours: &HashMap<Uuid, Books>,
    theirs: &HashMap<Uuid, Theirs>,
    ends: &HashMap<Uuid, End>,
) -> Finding {
    let mut finding = Finding::new("I2", "orders at the provider");
    for (order, books) in ours {
        let nothing = Theirs::default();
        let theirs = theirs.get(order).unwrap_or(&nothing);
        let same = (books.authorized, books.captured, books.voided, books.refunded)
            == (theirs.authorized, theirs.captured, theirs.voided, theirs.refunded);
        let kept = theirs.captured - theirs.refunded;
        let held = theirs.authorized - theirs.captured - theirs.voided;
        let why = if theirs.captures > 1 {
            Some("captured more than once")
        } else if books.at_rest && !same {
            Some("the books differ")
        } else if ends.get(order) == Some(&End::CalledOff) && (kept, held) != (0, 0) && !(books.refused && held == 0) {
            Some("called off, and not given back")
        } else {
            None
        };
        finding.look(order, why.map(|why| format!("{why}: ours {books:?}, the provider's {theirs:?}")));
    }
    for (order, theirs) in theirs.iter().filter(|(order, _)| !ours.contains_key(order)) {
        let moved = theirs.authorized != 0;
        finding.look(order, moved.then(|| format!("the provider has {theirs:?}, and we know nothing of it")));
    }
    finding
}
