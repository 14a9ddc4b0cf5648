//! Units that customers send back: what an event says of them, and the rows that say so afterwards.

use chassis::Unexpected;
use chassis::boot::db::column;
use contracts::souk::order::v1::{ReturnDisposition, ReturnedItem};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::ids::OrderId;
use crate::movement::{self, Movement};
use crate::stock::{Change, Line, UNSELL, WRITE_OFF};

/// A return of one order.
#[derive(Debug, Clone)]
pub(crate) struct CustomerReturn {
    /// Who took the units back.
    pub(crate) actor: String,
    pub(crate) items: Vec<ReturnedUnits>,
}

#[derive(Debug, Clone)]
pub(crate) struct ReturnedUnits {
    pub(crate) line: Line,
    disposition: Disposition,
}

/// What happens to units that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    Restock,
    WriteOff,
}

impl ReturnedUnits {
    /// None: this version does not know what shall happen to the units.
    pub(crate) fn parse(item: ReturnedItem) -> Option<Self> {
        let disposition = match item.disposition() {
            ReturnDisposition::Restock => Disposition::Restock,
            ReturnDisposition::WriteOff => Disposition::WriteOff,
            ReturnDisposition::Unspecified => return None,
        };
        let line = Line { sku: item.sku, quantity: item.quantity };
        (line.quantity > 0).then_some(Self { line, disposition })
    }

    /// For one unit.
    pub(crate) fn change(&self) -> Change {
        match self.disposition {
            Disposition::Restock => UNSELL,
            Disposition::WriteOff => WRITE_OFF,
        }
    }

    fn reason(&self) -> &'static str {
        match self.disposition {
            Disposition::Restock => "RETURNED",
            Disposition::WriteOff => "RETURNED_UNSALEABLE",
        }
    }
}

/// Writes what came back of the lines of reservations, and a movement for each item. The stock is written already.
pub(crate) async fn write(
    tx: &mut PgConnection,
    returns: &[(OrderId, CustomerReturn)],
    now: OffsetDateTime,
) -> Result<(), Unexpected> {
    let all = || returns.iter().flat_map(|(order_id, it)| it.items.iter().map(move |item| (*order_id, it, item)));
    let items: Vec<_> = all().collect();
    sqlx::query!(
        "update reservation_line as line set returned = line.returned + sum.quantity
         from (select order_id, sku, sum(quantity)::integer as quantity
               from unnest($1::uuid[], $2::text[], $3::integer[]) as it (order_id, sku, quantity)
               group by order_id, sku) as sum
         where line.order_id = sum.order_id and line.sku = sum.sku",
        &column(&items, |(order_id, ..)| *order_id) as &[OrderId],
        &column(&items, |(.., item)| item.line.sku.as_str()) as &[&str],
        &column(&items, |(.., item)| item.line.quantity),
    )
    .execute(&mut *tx)
    .await?;
    let movements = all().map(|(order_id, it, item)| Movement {
        sku: &item.line.sku,
        reason: item.reason(),
        units: item.line.quantity.into(),
        actor: it.actor.clone(),
        order_id: Some(order_id),
    });
    movement::record(tx, &movements.collect::<Vec<_>>(), now).await
}
