//! SKUs of which few units are available: their thresholds, the event when stock falls to one, and the list.
//!
//! An event is published by the transaction that takes the units, which has the row locked anyway. The list reads all SKUs with a
//! threshold: an index of those that are low would have to be written by every sale.

use chassis::boot::db::column;
use chassis::event::outbox::{Batch, Event as NewEvent};
use chassis::rpc::page::Page;
use chassis::{Caller, Unexpected};
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event::Event;
use contracts::souk::inventory::v1::{
    InventoryEvent, ListLowStockRequest, ListLowStockResponse, LowStock, SetLowStockThresholdRequest,
    SetLowStockThresholdResponse, StockLow,
};
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::service::Service;

/// The threshold of a SKU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threshold {
    low_at: i64,
    /// The key of the SKU's events.
    stock_id: Uuid,
    /// How many of them there were.
    version: i64,
}

/// A SKU that became low.
#[derive(Debug, Clone)]
pub(crate) struct Fallen {
    sku: String,
    available: i64,
    threshold: Threshold,
}

impl Threshold {
    pub(crate) fn of(low_at: Option<i64>, stock_id: Option<Uuid>, version: i64) -> Option<Self> {
        Some(Self { low_at: low_at?, stock_id: stock_id?, version })
    }

    /// Whether the stock became low by a change of the available units.
    pub(crate) fn fallen(self, sku: &str, before: i64, available: i64) -> Option<Fallen> {
        let fell = before > self.low_at && available <= self.low_at;
        fell.then(|| Fallen { sku: sku.to_owned(), available, threshold: self })
    }
}

/// Counts and publishes that SKUs became low. Their rows are locked.
pub(crate) async fn record(
    tx: &mut PgConnection,
    service: &Service,
    fallen: &[Fallen],
    actor: &str,
    events: &mut Batch,
) -> Result<(), Unexpected> {
    if fallen.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update stock set low_version = low_version + 1 where sku = any($1)",
        &column(fallen, |it| it.sku.as_str()) as &[&str],
    )
    .execute(tx)
    .await?;
    for Fallen { sku, available, threshold } in fallen {
        let (stock_id, threshold, version) = (threshold.stock_id, threshold.low_at, threshold.version + 1);
        let low = StockLow { sku: sku.clone(), stock_id: stock_id.to_string(), available: *available, threshold };
        let event = Event::StockLow(low);
        let event_type = event.event_type();
        let payload = InventoryEvent { order_id: String::new(), event: Some(event) };
        events.push(NewEvent {
            event_id: service.clock.new_id(),
            topic: Event::TOPIC,
            key: stock_id,
            version,
            event_type,
            payload: payload.encode_to_vec(),
            actor: actor.to_owned(),
            causation_id: None,
            occurred_at: service.clock.now(),
        });
    }
    Ok(())
}

pub(crate) async fn set_threshold(
    service: &Service,
    caller: &Caller,
    request: SetLowStockThresholdRequest,
) -> Result<SetLowStockThresholdResponse, Error> {
    let (sku, low_at) = (request.sku, request.threshold.map(i64::from));
    let mut tx = service.db.begin().await?;
    let before = sqlx::query_scalar!("select low_at from stock where sku = $1 for no key update", sku);
    let before = before.fetch_optional(&mut *tx).await?.ok_or_else(|| Error::SkuNotFound { sku: sku.clone() })?;
    let row = sqlx::query!(
        r#"update stock set low_at = $2, low_id = coalesce(low_id, $3) where sku = $1
           returning available, low_id as "low_id!", low_version"#,
        sku,
        low_at,
        service.clock.new_id(),
    );
    let row = row.fetch_one(&mut *tx).await?;
    // It may be low with the new threshold, and not with the one before.
    let was_low = before.is_some_and(|before| row.available <= before);
    let threshold = Threshold::of(low_at, Some(row.low_id), row.low_version);
    let fallen = threshold.filter(|it| !was_low && row.available <= it.low_at);
    let fallen = fallen.map(|threshold| Fallen { sku: sku.clone(), available: row.available, threshold });
    if fallen.is_some() {
        let mut events = Batch::default();
        record(&mut tx, service, fallen.as_slice(), &caller.actor(), &mut events).await?;
        events.append(&mut tx).await?;
    }
    tx.commit().await?;
    service.published.wake();
    tracing::info!(sku, ?low_at, actor = caller.actor(), "the threshold of a SKU was set");
    Ok(SetLowStockThresholdResponse { sku, available: row.available, threshold: low_at })
}

pub(crate) async fn list(service: &Service, request: ListLowStockRequest) -> Result<ListLowStockResponse, Error> {
    let page = Page::<String>::parse(request.page_size, &request.page_token, "low stock")?;
    let rows = sqlx::query!(
        r#"select sku, available, low_at as "low_at!" from stock
           where low_at is not null and available <= low_at and sku > $1 order by sku limit $2"#,
        page.after.clone().unwrap_or_default(),
        page.limit(),
    );
    let mut rows = rows.fetch_all(&service.db).await?;
    let next_page_token = page.cut(&mut rows, |row| row.sku.clone());
    let stocks = rows.into_iter().map(|row| LowStock { sku: row.sku, available: row.available, threshold: row.low_at });
    Ok(ListLowStockResponse { stocks: stocks.collect(), next_page_token })
}
