//! What a set of events adds to the figures. Pure: no clock, no database.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::event::HandleError;
use contracts::souk::order::v1::{OrderLine, OrderPlaced};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fact::{Fact, Stage, What, poisoned};
use crate::sketch;

const QUARTER: i64 = 15 * 60;

/// The state of an order in a projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CountedOrder {
    /// Up to which version its events are counted.
    pub(crate) version: i64,
    pub(crate) placed_at: OffsetDateTime,
    /// The stages in which it is counted, as bits.
    pub(crate) stages: i32,
    /// Its OrderPlaced event, until its products are counted or it has ended.
    pub(crate) lines: Vec<u8>,
}

/// Sums, in the order in which their rows are written: two transactions that add to the same rows lock them in the same order.
#[derive(Default)]
pub(crate) struct Additions {
    /// By quarter and currency.
    pub(crate) sales: BTreeMap<(OffsetDateTime, String), SalesAdded>,
    /// By quarter, product and currency.
    pub(crate) products: BTreeMap<(OffsetDateTime, Uuid, String), ProductAdded>,
    /// By quarter, stage and reason.
    pub(crate) funnel: BTreeMap<(OffsetDateTime, &'static str, String), i64>,
    /// By quarter and bucket.
    pub(crate) confirmation_times: BTreeMap<(OffsetDateTime, i16), i64>,
}

#[derive(Default)]
pub(crate) struct SalesAdded {
    pub(crate) paid_orders: i64,
    pub(crate) gross: i64,
    pub(crate) refunded: i64,
}

#[derive(Default)]
pub(crate) struct ProductAdded {
    pub(crate) sku: String,
    pub(crate) title: String,
    pub(crate) orders: i64,
    pub(crate) units: i64,
    pub(crate) gross: i64,
}

impl Additions {
    /// Adds a fact to the sums and to its order, which is none before it was placed. A fact that is counted adds nothing.
    pub(crate) fn add(&mut self, order: &mut Option<CountedOrder>, fact: &Fact) -> Result<(), HandleError> {
        if order.as_ref().is_some_and(|order| fact.version <= order.version) {
            return Ok(());
        }
        if let What::Placed { lines } = &fact.what {
            let lines = OrderPlaced { lines: lines.clone(), ..OrderPlaced::default() }.encode_to_vec();
            order.get_or_insert(CountedOrder { version: 0, placed_at: fact.at, stages: 0, lines });
        }
        // Its OrderPlaced was discarded from the dead letters.
        let order =
            order.as_mut().ok_or_else(|| poisoned("its order was never placed, as far as events were handled"))?;
        order.version = fact.version;
        let (at, total) = (quarter(fact.at), &fact.total);
        match &fact.what {
            What::Placed { .. } => {
                self.count(order, Stage::Placed, "");
            }
            What::Reserved => {
                self.count(order, Stage::Reserved, "");
            }
            What::Confirmed => {
                if self.count(order, Stage::Confirmed, "") {
                    let took = Duration::try_from(fact.at - order.placed_at).unwrap_or_default();
                    let bucket = (quarter(order.placed_at), sketch::bucket_of(took));
                    *self.confirmation_times.entry(bucket).or_default() += 1;
                }
            }
            What::Paid => {
                if self.count(order, Stage::Paid, "") {
                    let sales = self.sales.entry((at, total.currency.clone())).or_default();
                    sales.paid_orders += 1;
                    sales.gross = plus(sales.gross, total.minor)?;
                    let placed = OrderPlaced::decode(&*std::mem::take(&mut order.lines))?;
                    for line in placed.lines {
                        self.add_product(at, line)?;
                    }
                }
            }
            What::Fulfilled => {
                self.count(order, Stage::Fulfilled, "");
            }
            What::Ended { exit, reason } => {
                self.count(order, *exit, reason);
                order.lines.clear();
            }
            // What was captured and given back without a sale, as when the end overtook the payment, is neither.
            What::Refunded(_) | What::RefundFailed(_) if order.stages & (Stage::Paid as i32) == 0 => {}
            What::Refunded(amount) => {
                let sales = self.sales.entry((at, amount.currency.clone())).or_default();
                sales.refunded = plus(sales.refunded, amount.minor)?;
            }
            What::RefundFailed(amount) => {
                let sales = self.sales.entry((at, amount.currency.clone())).or_default();
                sales.refunded = plus(sales.refunded, -amount.minor)?;
            }
        }
        Ok(())
    }

    /// Counts an order in a stage of the funnel, where it was placed; returns whether it was not yet.
    fn count(&mut self, order: &mut CountedOrder, stage: Stage, reason: &str) -> bool {
        let is_new = order.stages & stage as i32 == 0;
        if is_new {
            order.stages |= stage as i32;
            *self.funnel.entry((quarter(order.placed_at), stage.name(), reason.to_owned())).or_default() += 1;
        }
        is_new
    }

    fn add_product(&mut self, at: OffsetDateTime, line: OrderLine) -> Result<(), HandleError> {
        let product_id = Uuid::try_parse(&line.product_id).map_err(|_| poisoned("a product_id is not a UUID"))?;
        let price = line.unit_price.unwrap_or_default();
        let amount = price.minor.checked_mul(line.quantity.into()).ok_or_else(|| poisoned("a line is out of range"))?;
        let added = self.products.entry((at, product_id, price.currency)).or_default();
        (added.sku, added.title) = (line.sku, line.title);
        added.orders += 1;
        added.units = plus(added.units, line.quantity.into())?;
        added.gross = plus(added.gross, amount)?;
        Ok(())
    }
}

fn plus(sum: i64, amount: i64) -> Result<i64, HandleError> {
    sum.checked_add(amount).ok_or_else(|| poisoned("an amount is out of range"))
}

/// The quarter of an hour in which something happened.
fn quarter(at: OffsetDateTime) -> OffsetDateTime {
    let seconds = at.unix_timestamp().div_euclid(QUARTER) * QUARTER;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
