//! What is sent of an order, and what comes back: the shipments of an order, and the units of its lines in them.

use std::collections::HashMap;

use chassis::boot::db::column;
use chassis::{Unexpected, timestamp};
use contracts::souk::order::v1::{self as proto, ReturnDisposition, ReturnedItem, ShippedItem};
use contracts::souk::r#type::v1::Money;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Error;
use crate::ids::{OrderId, ProductId};
use crate::order::{Line, Order};
use crate::state::State;

/// How many shipments an order may have, and how many returns: so that one order always fits into a response.
pub(crate) const MAX_PARTS: i32 = 100;

/// Units of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) product_id: ProductId,
    pub(crate) quantity: i32,
}

/// What is handed to a carrier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parcel {
    pub(crate) carrier: String,
    pub(crate) tracking_number: String,
    /// Empty in events of releases without partial fulfilment: then it is the whole order.
    pub(crate) items: Vec<Units>,
}

/// Units that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) units: Units,
    pub(crate) disposition: ReturnDisposition,
}

/// A parcel that was recorded. Queries that read an order select its shipments as an array of such records.
#[derive(Debug, Clone, PartialEq, sqlx::Type)]
#[sqlx(type_name = "record")]
pub(crate) struct Shipment {
    pub(crate) number: i32,
    pub(crate) carrier: String,
    pub(crate) tracking_number: String,
    pub(crate) product_ids: Vec<ProductId>,
    pub(crate) quantities: Vec<i32>,
    pub(crate) shipped_at: OffsetDateTime,
}

impl Parcel {
    pub(crate) fn from_event(carrier: String, tracking_number: String, items: &[ShippedItem]) -> Self {
        let units = |item: &ShippedItem| Units::from_event(&item.product_id, item.quantity);
        Self { carrier, tracking_number, items: items.iter().map(units).collect() }
    }
}

impl Returned {
    pub(crate) fn from_event(item: &ReturnedItem) -> Self {
        Self { units: Units::from_event(&item.product_id, item.quantity), disposition: item.disposition() }
    }
}

impl Units {
    fn from_event(product_id: &str, quantity: i32) -> Self {
        Self { product_id: ProductId::parse(product_id).unwrap_or_default(), quantity }
    }
}

impl Order {
    /// How many units of a line were handed to a carrier. All of a fulfilled order: releases without partial fulfilment counted
    /// nothing in lines.
    pub(crate) fn fulfilled(&self, line: &Line) -> i32 {
        if self.state == State::Fulfilled { line.quantity } else { line.fulfilled }
    }

    /// Whether all units are, once these are handed over, too.
    pub(crate) fn is_complete_with(&self, items: &[Units]) -> bool {
        let added =
            |line: &Line| items.iter().filter(|it| it.product_id == line.product_id).map(|it| it.quantity).sum::<i32>();
        self.lines.iter().all(|line| self.fulfilled(line) + added(line) == line.quantity)
    }

    /// Everything that is not fulfilled yet.
    pub(crate) fn unfulfilled(&self) -> Vec<Units> {
        let left = |line: &Line| Units { product_id: line.product_id, quantity: line.quantity - self.fulfilled(line) };
        self.lines.iter().map(left).filter(|units| units.quantity > 0).collect()
    }

    /// Refuses units of products that the order does not have, and more than `left` says of a line. A product may occur more
    /// than once.
    pub(crate) fn check_units(&self, items: &[Units], left: impl Fn(&Line) -> i32) -> Result<(), Error> {
        let mut wanted = HashMap::<ProductId, i32>::new();
        let unknown: Vec<_> = (0..).zip(items).filter(|(_, item)| self.line(item.product_id).is_none()).collect();
        if !unknown.is_empty() {
            let fields = unknown.iter().map(|(at, _)| format!("items[{at}].product_id")).collect();
            return Err(Error::ItemNotInOrder { fields });
        }
        for item in items {
            *wanted.entry(item.product_id).or_default() += item.quantity;
        }
        for line in &self.lines {
            let left = left(line);
            if wanted.get(&line.product_id).is_some_and(|wanted| *wanted > left) {
                return Err(Error::ItemQuantityExceeded { sku: line.sku.clone(), left });
            }
        }
        Ok(())
    }

    pub(crate) fn line(&self, product_id: ProductId) -> Option<&Line> {
        self.lines.iter().find(|line| line.product_id == product_id)
    }

    /// What these units cost, in minor units.
    pub(crate) fn price_of(&self, items: &[Returned]) -> i64 {
        let price = |units: Units| self.line(units.product_id).map_or(0, |line| line.price_minor);
        items.iter().map(|item| price(item.units) * i64::from(item.units.quantity)).sum()
    }

    pub(crate) fn shipments_count(&self) -> i32 {
        i32::try_from(self.shipments.len()).unwrap_or(i32::MAX)
    }

    /// Whether rows beside the order's own say what was sent and came back.
    pub(crate) fn has_parcels(&self) -> bool {
        !self.shipments.is_empty() || self.returns > 0
    }

    /// In lists, and of an order that an earlier release fulfilled, without a number and items.
    pub(crate) fn newest_shipment(&self) -> Option<proto::Shipment> {
        let unnumbered = || proto::Shipment {
            carrier: self.carrier.clone(),
            tracking_number: self.tracking_number.clone(),
            ..Default::default()
        };
        let newest = self.shipments.last().map(|shipment| self.shipment_to_proto(shipment));
        newest.or_else(|| (!self.carrier.is_empty()).then(unnumbered))
    }

    pub(crate) fn ship(&mut self, parcel: &Parcel, at: OffsetDateTime) {
        self.carrier.clone_from(&parcel.carrier);
        self.tracking_number.clone_from(&parcel.tracking_number);
        if parcel.items.is_empty() {
            return;
        }
        self.shipments.push(Shipment {
            number: self.shipments_count() + 1,
            carrier: parcel.carrier.clone(),
            tracking_number: parcel.tracking_number.clone(),
            product_ids: parcel.items.iter().map(|item| item.product_id).collect(),
            quantities: parcel.items.iter().map(|item| item.quantity).collect(),
            shipped_at: at,
        });
        for line in &mut self.lines {
            let added = parcel.items.iter().filter(|item| item.product_id == line.product_id);
            line.fulfilled += added.map(|item| item.quantity).sum::<i32>();
        }
    }

    pub(crate) fn take_back(&mut self, items: &[Returned]) {
        self.returns += 1;
        let fulfilled: Vec<_> = self.lines.iter().map(|line| self.fulfilled(line)).collect();
        for (line, fulfilled) in self.lines.iter_mut().zip(fulfilled) {
            let back = items.iter().filter(|item| item.units.product_id == line.product_id);
            let back = back.map(|item| item.units.quantity).sum::<i32>();
            if back > 0 {
                line.fulfilled = fulfilled;
                line.returned += back;
            }
        }
    }

    pub(crate) fn shipment_to_proto(&self, shipment: &Shipment) -> proto::Shipment {
        let items = shipment.product_ids.iter().zip(&shipment.quantities);
        proto::Shipment {
            carrier: shipment.carrier.clone(),
            tracking_number: shipment.tracking_number.clone(),
            number: shipment.number,
            items: items.map(|(product_id, quantity)| self.shipped(*product_id, *quantity)).collect(),
            create_time: Some(timestamp(shipment.shipped_at)),
        }
    }

    pub(crate) fn items_to_event(&self, parcel: &Parcel) -> Vec<ShippedItem> {
        parcel.items.iter().map(|units| self.shipped(units.product_id, units.quantity)).collect()
    }

    fn shipped(&self, product_id: ProductId, quantity: i32) -> ShippedItem {
        let sku = self.line(product_id).map(|line| line.sku.clone()).unwrap_or_default();
        ShippedItem { product_id: product_id.to_string(), sku, quantity }
    }

    pub(crate) fn returned_to_event(&self, items: &[Returned]) -> Vec<ReturnedItem> {
        let item = |Returned { units, disposition }: &Returned| {
            let line = self.line(units.product_id);
            ReturnedItem {
                product_id: units.product_id.to_string(),
                sku: line.map(|line| line.sku.clone()).unwrap_or_default(),
                quantity: units.quantity,
                disposition: (*disposition).into(),
                unit_price: line.map(|line| Money::new(self.currency.clone(), line.price_minor)),
            }
        };
        items.iter().map(item).collect()
    }
}

/// Writes the lines and shipments of orders whose own rows are written already. Shipments never change, so that those which are
/// there stay.
pub(crate) async fn save(
    db: &mut PgConnection,
    orders: impl Iterator<Item = &Order> + Clone,
) -> Result<(), Unexpected> {
    let lines: Vec<_> =
        orders.clone().flat_map(|order| order.lines.iter().map(move |line| (order.order_id, line))).collect();
    let shipments: Vec<_> =
        orders.flat_map(|order| order.shipments.iter().map(move |it| (order.order_id, it))).collect();
    sqlx::query!(
        "update order_line set fulfilled = changed.fulfilled, returned = changed.returned
         from (select * from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[]) limit cardinality($1))
           as changed (order_id, product_id, fulfilled, returned)
         where order_line.order_id = changed.order_id and order_line.product_id = changed.product_id",
        &column(&lines, |(order_id, _)| *order_id) as &[OrderId],
        &column(&lines, |(_, line)| line.product_id) as &[ProductId],
        &column(&lines, |(_, line)| line.fulfilled),
        &column(&lines, |(_, line)| line.returned),
    )
    .execute(&mut *db)
    .await?;
    // Arrays of arrays must not differ in length: those of a shipment travel as texts.
    sqlx::query!(
        "insert into order_shipment (order_id, number, carrier, tracking_number, product_ids, quantities, shipped_at)
         select order_id, number, carrier, tracking_number, product_ids::uuid[], quantities::integer[], shipped_at
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
           as it (order_id, number, carrier, tracking_number, product_ids, quantities, shipped_at)
         where not exists (select from order_shipment as known
                           where known.order_id = it.order_id and known.number = it.number)",
        &column(&shipments, |(order_id, _)| *order_id) as &[OrderId],
        &column(&shipments, |(_, it)| it.number),
        &column(&shipments, |(_, it)| it.carrier.as_str()) as &[&str],
        &column(&shipments, |(_, it)| it.tracking_number.as_str()) as &[&str],
        &column(&shipments, |(_, it)| array(&it.product_ids)) as &[String],
        &column(&shipments, |(_, it)| array(&it.quantities)) as &[String],
        &column(&shipments, |(_, it)| it.shipped_at),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An array of ids or numbers as Postgres writes it.
fn array(items: &[impl ToString]) -> String {
    format!("{{{}}}", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}
