//! Orders, with their reservations and payments, are looked at a range at a time, so that what is in memory at once does not
//! grow with the shop.

use std::collections::HashMap;

use chassis::Unexpected;
use chassis::check::{Excuses, Finding, Range};
use inventory::check::Holding;
use order::check::End;
use uuid::Uuid;

use super::discards::Discards;
use super::{Error, Shop, money, progress};

const LOOKS: u32 = 4;

impl Shop {
    /// What looks wrong is looked at again, as an order on its way is never in the same place everywhere: only what is wrong
    /// about the same thing each time is a violation.
    pub(crate) async fn repeat(
        &self,
        look: impl AsyncFn() -> Result<Vec<Finding>, Error>,
    ) -> Result<Vec<Finding>, Error> {
        let mut findings = look().await?;
        for _ in 1..LOOKS {
            if findings.iter().all(|finding| finding.violations.is_empty()) {
                break;
            }
            tokio::time::sleep(self.look_again).await;
            let earlier = std::mem::replace(&mut findings, look().await?);
            for (finding, earlier) in findings.iter_mut().zip(&earlier) {
                finding.keep_repeated(earlier);
            }
        }
        Ok(findings)
    }
}

/// Where one finding is all there is.
pub(crate) async fn single<E>(finding: impl Future<Output = Result<Finding, E>>) -> Result<Vec<Finding>, Error>
where
    Error: From<E>,
{
    Ok(vec![finding.await?])
}

/// I2, I3, I4 and I9 of all orders. A range ends where the first of the three databases has as many as are read at once.
pub(crate) async fn walk_orders(shop: &Shop, discards: &Discards) -> Result<Vec<Finding>, Error> {
    let (mut all, mut next, mut since) = (Vec::new(), Some(Uuid::nil()), 0);
    let (count, mut looked_at) = (order::check::count(&shop.order).await?, 0);
    while let Some(after) = next {
        progress::set(format!("I2, I3, I4, I9: {looked_at} of {count} orders were looked at"));
        let range = Range::to_first(after, order_ends(shop, after).await?);
        next = range.next();
        let mut findings = shop.repeat(|| look_at_orders(shop, range, &discards.excuses)).await?;
        looked_at += findings.iter().find(|it| it.things == "orders").map_or(0, |it| it.count);
        if let Some(provider) = &shop.provider {
            let created = since..seconds(range.last).max(since);
            findings.extend(shop.repeat(|| single(money::check(shop, provider, range, &created))).await?);
            since = created.end;
        }
        absorb(&mut all, findings);
    }
    Ok(all)
}

async fn order_ends(shop: &Shop, after: Uuid) -> Result<[Option<Uuid>; 3], Unexpected> {
    let most = shop.sizes.range;
    Ok([
        order::check::range_end(&shop.order, after, most).await?,
        inventory::check::range_end(&shop.inventory, after, most).await?,
        payment::check::range_end(&shop.payment, after, most).await?,
    ])
}

/// Always the same findings, in the same order.
async fn look_at_orders(shop: &Shop, range: Range, excuses: &Excuses) -> Result<Vec<Finding>, Error> {
    let (Shop { inventory, order, payment, .. }, as_of) = (shop, shop.as_of());
    let orders = order::check::order_ids(order, range).await?;
    let ends = order::check::ends(order, &orders, as_of).await?;
    Ok(vec![
        payment::check::check_ledger(payment, range).await?,
        order::check::check_settled(order, range, as_of, excuses).await?,
        compare_stock(&ends, &inventory::check::held_or_sold(inventory, range).await?, excuses),
        compare_refunds(
            &payment::check::refunded(payment, range, as_of).await?,
            &order::check::refunded(order, range).await?,
            excuses,
        ),
        order::check::check_orders(order, range).await?,
        inventory::check::check_reservations(inventory, range).await?,
    ])
}

/// I4, the other half: what was sold has its stock sold, and what was called off holds none.
pub(crate) fn compare_stock(ends: &HashMap<Uuid, End>, held: &HashMap<Uuid, Holding>, excuses: &Excuses) -> Finding {
    let mut finding = Finding::new("I4", "orders in stock");
    for (order, end) in ends {
        let why = match (end, held.get(order)) {
            (End::Sold, Some(Holding::Sold)) | (End::CalledOff, None) => None,
            (End::Sold, held) => Some(format!("it is confirmed, and its stock is not sold but {held:?}")),
            (End::CalledOff, Some(held)) => Some(format!("it was called off, and its stock is {held:?}")),
        };
        finding.look_unless(excuses, order, why);
    }
    finding
}

/// I4, what went back: the order says what the books say.
pub(crate) fn compare_refunds(ours: &HashMap<Uuid, i64>, theirs: &HashMap<Uuid, i64>, excuses: &Excuses) -> Finding {
    let mut finding = Finding::new("I4", "orders and their refunds");
    for (order, refunded) in ours {
        let said = theirs.get(order).copied().unwrap_or_default();
        let why = (said != *refunded).then(|| format!("{refunded} went back of it, and it says {said}"));
        finding.look_unless(excuses, order, why);
    }
    finding
}

/// When this id was made, if it says so. Behind the last one is the end of all time.
fn seconds(id: Uuid) -> u64 {
    if id == Uuid::max() { u64::MAX } else { id.get_timestamp().map_or(0, |made| made.to_unix().0) }
}

/// I9 of all payments, by their own ids.
pub(crate) async fn walk_payments(shop: &Shop) -> Result<Vec<Finding>, Error> {
    let (mut all, mut next) = (Vec::new(), Some(Uuid::nil()));
    while let Some(after) = next {
        let end = payment::check::history_end(&shop.payment, after, shop.sizes.range).await?;
        let range = Range::to_first(after, [end]);
        next = range.next();
        absorb(&mut all, shop.repeat(|| single(payment::check::check_payments(&shop.payment, range))).await?);
        let looked_at = all.iter().map(|finding| finding.count).sum::<u64>();
        progress::set(format!("I9: {looked_at} payments were looked at"));
    }
    Ok(all)
}

fn absorb(all: &mut Vec<Finding>, more: Vec<Finding>) {
    if all.is_empty() {
        *all = more;
        return;
    }
    for (finding, more) in all.iter_mut().zip(more) {
        finding.absorb(more);
    }
}
