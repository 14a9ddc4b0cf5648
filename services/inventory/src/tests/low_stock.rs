use contracts::souk::inventory::v1::inventory_event::Event;
use contracts::souk::inventory::v1::*;
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::reservation::{cancelled, placed};
use crate::check;

impl Fixture {
    async fn set_threshold(&self, sku: &str, threshold: Option<i32>) -> Result<SetLowStockThresholdResponse, Status> {
        let request = SetLowStockThresholdRequest { sku: sku.into(), threshold };
        Ok(self.client.clone().set_low_stock_threshold(self.kit.operator(request)).await?.into_inner())
    }

    async fn low(&self, page_size: i32, page_token: &str) -> Result<ListLowStockResponse, Status> {
        let request = ListLowStockRequest { page_size, page_token: page_token.into() };
        Ok(self.client.clone().list_low_stock(self.kit.operator(request)).await?.into_inner())
    }

    /// The SKUs of the events that say so, and how many units were available.
    async fn fallen(&self) -> Vec<(String, i64)> {
        let records = testkit::published(&self.service.db).await;
        let lows = records.into_iter().filter_map(|record| match InventoryEvent::decode(&*record.payload) {
            Ok(InventoryEvent { event: Some(Event::StockLow(low)), order_id }) => {
                assert_eq!((order_id, low.stock_id), (String::new(), record.key.to_string()));
                Some((low.sku, low.available))
            }
            _ => None,
        });
        lows.collect()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_is_published_each_time_that_stock_falls_to_its_threshold(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    fixture.receive("k2", "CUP", 10).await.expect("received");
    let set = fixture.set_threshold("MUG", Some(5)).await.expect("set");
    assert_eq!((set.available, set.threshold), (10, Some(5)));
    assert_eq!(fixture.fallen().await, []);

    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    fixture.kit.deliver(placed(first, &[("MUG", 4), ("CUP", 9)])).await;
    assert_eq!(fixture.fallen().await, [], "one more is left than the threshold");
    fixture.kit.deliver(placed(second, &[("MUG", 2)])).await;
    assert_eq!(fixture.fallen().await, [("MUG".to_owned(), 4)]);
    fixture.adjust("a1", "MUG", -1).await.expect("lost");
    assert_eq!(fixture.fallen().await.len(), 1, "it was low before");
    fixture.kit.deliver(cancelled(first)).await;
    fixture.adjust("a2", "MUG", -3).await.expect("lost");
    assert_eq!(fixture.fallen().await, [("MUG".to_owned(), 4), ("MUG".to_owned(), 4)], "it had been above");
    assert_eq!(fixture.set_threshold("CUP", Some(0)).await.expect("set").available, 10);
    fixture.set_threshold("CUP", Some(10)).await.expect("set");
    fixture.set_threshold("CUP", Some(11)).await.expect("set");
    assert_eq!(fixture.fallen().await.len(), 3, "it is low with the new threshold, and not once more with the next");

    // Each SKU has a key of its own, whose versions `souk check` reads beside those of reservations.
    let key = sqlx::query_scalar!(r#"select low_id as "it!" from stock where sku = 'MUG'"#);
    let key = key.fetch_one(&fixture.service.db).await.expect("a key");
    assert_eq!(fixture.kit.published(key).await, ["StockLow", "StockLow"]);
    let versions = check::versions(&fixture.service.db, Uuid::nil(), 10).await.expect("versions");
    assert!(versions.contains(&(key, 2)) && versions.contains(&(second, 1)), "{versions:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_low_is_listed_by_sku(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (sku, units, threshold) in
        [("C", 5, Some(5)), ("A", 0, Some(0)), ("B", 6, Some(5)), ("D", 1, None), ("E", 1, Some(1_000_000))]
    {
        fixture.receive(sku, sku, units + 1).await.expect("received");
        fixture.adjust(&format!("{sku}-"), sku, -1).await.expect("lost");
        fixture.set_threshold(sku, threshold).await.expect("set");
    }
    let page = fixture.low(2, "").await.expect("a page");
    let skus = |page: &ListLowStockResponse| {
        page.stocks.iter().map(|it| (it.sku.clone(), it.available, it.threshold)).collect::<Vec<_>>()
    };
    assert_eq!(skus(&page), [("A".to_owned(), 0, 0), ("C".to_owned(), 5, 5)]);
    let rest = fixture.low(2, &page.next_page_token).await.expect("a page");
    assert_eq!((skus(&rest), rest.next_page_token.as_str()), (vec![("E".to_owned(), 1, 1_000_000)], ""));
    fixture.set_threshold("A", None).await.expect("never low");
    assert_eq!(fixture.low(0, "").await.expect("a page").stocks.len(), 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn thresholds_are_for_operators_and_have_limits(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let unknown = fixture.set_threshold("MUG", Some(1)).await.expect_err("never received");
    assert_eq!(reason(&unknown), "SKU_NOT_FOUND@souk.inventory");
    for threshold in [-1, 1_000_001] {
        let refused = fixture.set_threshold("MUG", Some(threshold)).await.expect_err("out of range");
        assert_eq!(fields(&refused), ["threshold"]);
    }
    assert_eq!(reason(&fixture.low(0, "forged").await.expect_err("forged")), "PAGE_TOKEN_INVALID@souk.inventory");
    let request = SetLowStockThresholdRequest { sku: "MUG".into(), threshold: Some(1) };
    let refused = fixture.client.clone().set_low_stock_threshold(fixture.kit.customer(CUSTOMER, request)).await;
    assert_eq!(refused.expect_err("operators").code(), Code::PermissionDenied);
    let request = fixture.kit.customer(CUSTOMER, ListLowStockRequest::default());
    let refused = fixture.client.clone().list_low_stock(request).await;
    assert_eq!(refused.expect_err("operators").code(), Code::PermissionDenied);
}
