//! I2, I3, I4, I7, I9 and I12: orders with their reservations, payments, notifications and figures, by ranges of ids, so that memory is bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chassis::Unexpected;
use chassis::check::{Exemptions, Finding, Range};
use inventory::check::{Holding, Units};
use notification::check::Told;
use order::check::{Returned, Settled};
use uuid::Uuid;

use crate::dead_letters::Discarded;
use crate::recheck::{merge, single};
use crate::{Error, Sources, progress, provider};

/// How long it may take until there is a notification of an event, and until it is counted.
const CONSUMED_WITHIN: Duration = Duration::from_secs(60);
/// How long after the time of its attempts a notification may still wait: for the last of them.
const END_WITHIN: Duration = Duration::from_secs(3 * 3_600);

/// I2, I3, I4, I7, I9 and I12 of all orders. A range ends at the first row by which one of the five databases has `rows_per_range`.
pub(crate) async fn check_orders(sources: &Sources, discarded: &Discarded) -> Result<Vec<Finding>, Error> {
    let (mut all, mut next, mut since) = (Vec::new(), Some(Uuid::nil()), 0);
    let (count, mut checked) = (order::check::count(&sources.order).await?, 0);
    // At rest, none waits.
    let as_of = sources.as_of();
    let ended = if sources.at_rest { as_of } else { as_of - sources.give_up_after - END_WITHIN };
    let deadlines = notification::check::Deadlines::read(&sources.notification, ended).await?;
    while let Some(after) = next {
        progress::set(format!("I2, I3, I4, I7, I9, I12: {checked} of {count} orders were checked"));
        let range = Range::to_first(after, order_ends(sources, after).await?);
        next = range.next();
        let mut findings = sources.recheck(|| check_range(sources, range, &discarded.exemptions, &deadlines)).await?;
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

async fn order_ends(sources: &Sources, after: Uuid) -> Result<[Option<Uuid>; 5], Unexpected> {
    let most = sources.sizes.rows_per_range;
    Ok([
        order::check::range_end(&sources.order, after, most).await?,
        inventory::check::range_end(&sources.inventory, after, most).await?,
        payment::check::range_end(&sources.payment, after, most).await?,
        notification::check::range_end(&sources.notification, after, most).await?,
        analytics::check::range_end(&sources.analytics, after, most).await?,
    ])
}

/// Always returns the same findings in the same order.
async fn check_range(
    sources: &Sources,
    range: Range,
    exemptions: &Exemptions,
    deadlines: &notification::check::Deadlines,
) -> Result<Vec<Finding>, Error> {
    let (Sources { inventory, order, payment, notification, analytics, .. }, as_of) = (sources, sources.as_of());
    let orders = order::check::order_ids(order, range).await?;
    let settled = order::check::settled(order, &orders, as_of).await?;
    // Read before the stages, so that what others know of has happened by then.
    let told = notification::check::told(notification, range, deadlines).await?;
    let counted = analytics::check::counted(analytics, range).await?;
    let stages = order::check::stages(order, range, as_of - CONSUMED_WITHIN).await?;
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
        compare_notifications(&stages, &told, exemptions),
        compare_stages(&stages, &counted, exemptions),
    ])
}

/// The stages of orders that customers are not told of.
const UNTOLD: [&str; 3] = ["PLACED", "RESERVED", "PAID"];

/// I7: each outcome of an order has one notification, and no other has; none waits for too long. That there are no two is a
/// constraint.
pub(crate) fn compare_notifications(
    stages: &HashMap<Uuid, HashMap<String, bool>>,
    told: &HashMap<Uuid, Vec<Told>>,
    exemptions: &Exemptions,
) -> Finding {
    let mut finding = Finding::new("I7", "orders and their notifications");
    let (no_stages, nothing) = (HashMap::new(), Vec::new());
    for order in stages.keys().chain(told.keys().filter(|order| !stages.contains_key(order))) {
        let (stages, told) = (stages.get(order).unwrap_or(&no_stages), told.get(order).unwrap_or(&nothing));
        let outcomes = stages.iter().filter(|(stage, _)| !UNTOLD.contains(&stage.as_str()));
        let outcomes = outcomes.map(|(stage, is_old)| (format!("ORDER_{stage}"), *is_old)).collect::<HashMap<_, _>>();
        let untold = outcomes.iter().filter(|(_, is_old)| **is_old).map(|(kind, _)| kind);
        let untold = untold.filter(|kind| told.iter().all(|it| it.kind != **kind || it.channel != "EMAIL"));
        let mut wrong: Vec<_> = untold.map(|kind| format!("its customer was not told of {kind}")).collect();
        for Told { kind, channel, state, is_late } in told {
            if !outcomes.contains_key(kind) {
                wrong.push(format!("its customer was told of {kind}, which did not happen"));
            } else if *is_late {
                wrong.push(format!("the notification of {kind} by {channel} is still {state}"));
            }
        }
        wrong.sort();
        finding.add_unless_exempt(exemptions, order, (!wrong.is_empty()).then(|| wrong.join("; ")));
    }
    finding
}

/// I12: an order is counted in each stage that it has reached, and in no other.
pub(crate) fn compare_stages(
    reached: &HashMap<Uuid, HashMap<String, bool>>,
    counted: &HashMap<Uuid, BTreeSet<&'static str>>,
    exemptions: &Exemptions,
) -> Finding {
    let mut finding = Finding::new("I12", "orders in figures");
    let (none_reached, none_counted) = (HashMap::new(), BTreeSet::new());
    for order in reached.keys().chain(counted.keys().filter(|order| !reached.contains_key(order))) {
        let (reached, counted) =
            (reached.get(order).unwrap_or(&none_reached), counted.get(order).unwrap_or(&none_counted));
        let missing = reached.iter().filter(|(stage, is_old)| **is_old && !counted.contains(stage.as_str()));
        let mut wrong: Vec<_> = missing.map(|(stage, _)| format!("it is not counted as {stage}")).collect();
        let wrongly = counted.iter().filter(|stage| !reached.contains_key(**stage));
        wrong.extend(wrongly.map(|stage| format!("it is counted as {stage}, which did not happen")));
        wrong.sort();
        finding.add_unless_exempt(exemptions, order, (!wrong.is_empty()).then(|| wrong.join("; ")));
    }
    finding
}

/// I12, at rest: what was paid and refunded is what the orders say, by currency.
pub(crate) fn compare_sales(orders: &BTreeMap<String, [i64; 3]>, figures: &BTreeMap<String, [i64; 3]>) -> Finding {
    let mut finding = Finding::new("I12", "currencies");
    for currency in orders.keys().chain(figures.keys().filter(|it| !orders.contains_key(*it))) {
        let [ours, theirs] = [orders, figures].map(|it| it.get(currency).copied().unwrap_or_default());
        let why = format!("{theirs:?} is counted as paid orders, gross sales and refunds, but orders say {ours:?}");
        finding.add(currency, (ours != theirs).then_some(why));
    }
    finding
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

/// I4: inventory restocked and wrote off the units that came back of each order, and payment refunded their price, as far as it could.
pub(crate) fn compare_returns(
    ours: &HashMap<Uuid, Returned>,
    units: &HashMap<Uuid, Units>,
    minor: &HashMap<Uuid, i64>,
    exemptions: &Exemptions,
) -> Finding {
    let mut finding = Finding::new("I4", "orders and their returns");
    for (order, ours) in ours {
        let (units, minor) = (units.get(order).cloned(), minor.get(order).copied());
        let theirs = Returned { units: units.unwrap_or_default(), minor: minor.unwrap_or_default() };
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
