use contracts::souk::inventory::v1::*;
use sqlx::PgPool;
use testkit::{Log, OPERATOR, fields, reason};
use tonic::{Code, Status};

use super::Fixture;

impl Fixture {
    pub(super) async fn receive(&self, key: &str, sku: &str, quantity: i32) -> Result<StockLevel, Status> {
        let request = ReceiveStockRequest { request_id: key.into(), sku: sku.into(), quantity };
        let response = self.client.clone().receive_stock(self.kit.operator(request)).await?;
        Ok(response.into_inner().stock.expect("a success has the level"))
    }

    pub(super) async fn adjust(&self, key: &str, sku: &str, change: i32) -> Result<StockLevel, Status> {
        let reason = AdjustReason::Count.into();
        let request = AdjustStockRequest { request_id: key.into(), sku: sku.into(), change, reason };
        let response = self.client.clone().adjust_stock(self.kit.operator(request)).await?;
        Ok(response.into_inner().stock.expect("a success has the level"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_first_delivery_makes_the_record_and_a_repeat_adds_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ask = GetStockRequest { sku: "MUG".into() };
    let unknown = fixture.client.clone().get_stock(ask.clone()).await.expect_err("never received");
    assert_eq!((unknown.code(), reason(&unknown)), (Code::NotFound, "SKU_NOT_FOUND@souk.inventory".into()));
    let log = Log::keep();
    let first = fixture.receive("k1", "MUG", 10).await.expect("received");
    assert_eq!(fixture.receive("k1", "MUG", 10).await.expect("replayed"), first);
    let lines = log.find("stock was received");
    let [line] = lines.as_slice() else { panic!("once, as it came once: {lines:?}") };
    assert!(line.contains(&format!("actor=\"operator:{OPERATOR}\"")) && line.contains("quantity=10"), "{line}");
    fixture.receive("k2", "MUG", 5).await.expect("received");
    let stock = fixture.client.clone().get_stock(ask).await.expect("public").into_inner().stock;
    assert_eq!(stock, Some(Stock { sku: "MUG".into(), available: 15 }));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_count_moves_units_but_never_below_zero(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let lost = fixture.adjust("a1", "MUG", -3).await.expect("three are lost");
    assert_eq!((lost.available, lost.received, lost.written_off), (7, 10, 3));
    let found = fixture.adjust("a2", "MUG", 1).await.expect("one is found");
    assert_eq!((found.available, found.received, found.written_off), (8, 11, 3));
    let short = fixture.adjust("a3", "MUG", -9).await.expect_err("only eight are there");
    assert_eq!((short.code(), reason(&short)), (Code::FailedPrecondition, "STOCK_SHORT@souk.inventory".into()));
    let unknown = fixture.adjust("a4", "CUP", 1).await.expect_err("never received");
    assert_eq!(reason(&unknown), "SKU_NOT_FOUND@souk.inventory");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn bad_fields_are_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let refused = fixture.receive("k1", "mug", 0).await.expect_err("both are wrong");
    assert_eq!(fields(&refused), ["sku", "quantity"]);
    let refused = fixture.receive("", "MUG", 1).await.expect_err("no key");
    assert_eq!(fields(&refused), ["request_id"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_batch_says_what_is_missing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let ask = BatchGetStockRequest { skus: vec!["CUP".into(), "MUG".into()] };
    let batch = fixture.client.clone().batch_get_stock(ask).await.expect("public").into_inner();
    let mug = Stock { sku: "MUG".into(), available: 10 };
    assert_eq!((batch.stocks, batch.missing_skus), (vec![mug], vec!["CUP".to_owned()]));
}
