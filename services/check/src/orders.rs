//! I2, I3, I4 and I9: orders with their reservations and payments, by ranges of ids, so that memory is bounded.

use std::collections::HashMap;

use chassis::Unexpected;
use chassis::check::{Exemptions, Finding, Range};
use inventory::check::Holding;
use order::check::{Returned, Settled};
use uuid::Uuid;

use crate::dead_letters::Discarded;
use crate::recheck::{merge, single};
use crate::{Error, Sources, progress, provider};

/// I2, I3, I4 and I9 of all orders. A range ends at the first row by which one of the three databases has `rows_per_range`.
pub(crate) async fn check_orders(sources: &Sources, discarded: &Discarded) -> Result<Vec<Finding>, Error> {
    let (mut all, mut next, mut since) = (Vec::new(), Some(Uuid::nil()), 0);
    let (count, mut checked) = (order::check::count(&sources.order).await?, 0);
    while let Some(after) = next {
        progress::set(format!("I2, I3, I4, I9: {checked} of {count} orders were checked"));
        let range = Range::to_first(after, order_ends(sources, after).await?);
        next = range.next();
        let mut findings = sources.recheck(|| check_range(sources, range, &discarded.exemptions)).await?;
        checked += findings.iter().find(|it| it.subject == "orders").map_or(0, |it| it.checked);
        if let Some(provider) = &sources.provider {
            let created = since..seconds(range.last).max(since);
            findings.extend(sources.recheck(|| single(provider::check(sources, provider, range, &created))).await?);
            since = created.end;
        }
        merge(&mut all, findings);
    }
    Ok(all)
}

async fn order_ends(sources: &Sources, after: Uuid) -> Result<[Option<Uuid>; 3], Unexpected> {
    let most = sources.sizes.rows_per_range;
    Ok([
        order::check::range_end(&sources.order, after, most).await?,
        inventory::check::range_end(&sources.inventory, after, most).await?,
        payment::check::range_end(&sources.payment, after, most).await?,
    ])
}

/// Always returns the same findings in the same order.
async fn check_range(sources: &Sources, range: Range, exemptions: &Exemptions) -> Result<Vec<Finding>, Error> {
    let (Sources { inventory, order, payment, .. }, as_of) = (sources, sources.as_of());
    let orders = order::check::order_ids(order, range).await?;
    let settled = order::check::settled(order, &orders, as_of).await?;
    Ok(vec![
        payment::check::check_ledger(payment, range).await?,
        order::check::check_settled(order, range, as_of, exemptions).await?,
        compare_stock(&settled, &inventory::check::held_or_sold(inventory, range).await?, exemptions),
        compare_refunds(
            &payment::check::refunded(payment, range, as_of).await?,
            &order::check::refunded(order, range).await?,
            exemptions,
        ),
        compare_returns(
            &order::check::returned(order, range, as_of).await?,
            &inventory::check::returned(inventory, range).await?,
            &payment::check::returned(payment, range).await?,
            exemptions,
        ),
        payment::check::check_returns(payment, range).await?,
        order::check::check_orders(order, range).await?,
        inventory::check::check_reservations(inventory, range).await?,
    ])
}

/// I4: the units of a sold order are sold, and an unsold one holds none.
pub(crate) fn compare_stock(
    settled: &HashMap<Uuid, Settled>,
    held: &HashMap<Uuid, Holding>,
    exemptions: &Exemptions,
) -> Finding {
    let mut finding = Finding::new("I4", "orders in stock");
    for (order, settled) in settled {
        let why = match (settled, held.get(order)) {
            (Settled::Sold, Some(Holding::Sold)) | (Settled::Unsold, None) => None,
            (Settled::Sold, held) => Some(format!("it is confirmed, but its stock is not sold but {held:?}")),
            (Settled::Unsold, Some(held)) => Some(format!("it was not sold, but its stock is {held:?}")),
        };
        finding.add_unless_exempt(exemptions, order, why);
    }
    finding
}

/// I4: the order service knows of every refund in the ledger, and of no other.
pub(crate) fn compare_refunds(
    ours: &HashMap<Uuid, i64>,
    theirs: &HashMap<Uuid, i64>,
    exemptions: &Exemptions,
) -> Finding {
    let mut finding = Finding::new("I4", "orders and their refunds");
    for (order, refunded) in ours {
        let known = theirs.get(order).copied().unwrap_or_default();
        let why =
            (known != *refunded).then(|| format!("{refunded} was refunded, but the order service knows of {known}"));
        finding.add_unless_exempt(exemptions, order, why);
    }
    finding
}

/// I4: inventory took back the units that came back of each order, and payment refunded them, as far as it could.
pub(crate) fn compare_returns(
    ours: &HashMap<Uuid, Returned>,
    units: &HashMap<Uuid, i64>,
    minor: &HashMap<Uuid, i64>,
    exemptions: &Exemptions,
) -> Finding {
    let mut finding = Finding::new("I4", "orders and their returns");
    for (order, ours) in ours {
        let of = |all: &HashMap<Uuid, i64>| all.get(order).copied().unwrap_or_default();
        let theirs = Returned { units: of(units), minor: of(minor) };
        let why = || format!("{ours:?} came back, but inventory and payment know of {theirs:?}");
        finding.add_unless_exempt(exemptions, order, (*ours != theirs).then(why));
    }
    finding
}

/// The Unix time of this id, 0 if it has none. The end of the last range is later than any time.
fn seconds(id: Uuid) -> u64 {
    if id == Uuid::max() { u64::MAX } else { id.get_timestamp().map_or(0, |made| made.to_unix().0) }
}

/// I9 of all payments, by their own ids.
pub(crate) async fn check_payments(sources: &Sources) -> Result<Vec<Finding>, Error> {
    let (mut all, mut next) = (Vec::new(), Some(Uuid::nil()));
    while let Some(after) = next {
        let end = payment::check::history_end(&sources.payment, after, sources.sizes.rows_per_range).await?;
        let range = Range::to_first(after, [end]);
        next = range.next();
        merge(&mut all, sources.recheck(|| single(payment::check::check_payments(&sources.payment, range))).await?);
        let checked = all.iter().map(|finding| finding.checked).sum::<u64>();
        progress::set(format!("I9: {checked} payments were checked"));
    }
    Ok(all)
}
