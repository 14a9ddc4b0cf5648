use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::ReturnDisposition;
use sqlx::PgPool;
use testkit::{CUSTOMER, OPERATOR, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::reservation::{confirmed, placed};
use super::take_back::returned;
use StockMovementReason::{Count, Received, Returned, ReturnedUnsaleable};

impl Fixture {
    async fn movements(&self, sku: &str, size: i32, token: &str) -> Result<ListStockMovementsResponse, Status> {
        let request = ListStockMovementsRequest { sku: sku.into(), page_size: size, page_token: token.into() };
        Ok(self.client.clone().list_stock_movements(self.kit.operator(request)).await?.into_inner())
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn movements_say_why_how_many_and_who(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    fixture.receive("k1", "MUG", 10).await.expect("replayed");
    fixture.adjust("a1", "MUG", -3).await.expect("three are lost");
    fixture.receive("k2", "CUP", 1).await.expect("received");
    let order = Uuid::now_v7();
    for record in [
        placed(order, &[("MUG", 4)]),
        confirmed(order),
        returned(order, 6, &[("MUG", 1, ReturnDisposition::Restock), ("MUG", 2, ReturnDisposition::WriteOff)]),
    ] {
        fixture.kit.deliver(record).await;
    }
    let (mut found, mut token) = (vec![], String::new());
    loop {
        let page = fixture.movements("MUG", 2, &token).await.expect("a page");
        found.extend(page.movements);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let summary = |it: &StockMovement| (it.reason(), it.units, it.order_id.clone());
    let (none, of) = (String::new, order.to_string());
    assert_eq!(
        found.iter().map(summary).collect::<Vec<_>>(),
        [(ReturnedUnsaleable, 2, of.clone()), (Returned, 1, of), (Count, -3, none()), (Received, 10, none())]
    );
    assert!(found.iter().all(|it| it.actor == format!("operator:{OPERATOR}") && it.create_time.is_some()), "{found:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn they_are_for_operators_and_of_known_skus(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let unknown = fixture.movements("MUG", 0, "").await.expect_err("never received");
    assert_eq!(reason(&unknown), "SKU_NOT_FOUND@souk.inventory");
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let forged = fixture.movements("MUG", 0, "forged").await.expect_err("no token of ours");
    assert_eq!(reason(&forged), "PAGE_TOKEN_INVALID@souk.inventory");
    let request = ListStockMovementsRequest { sku: "MUG".into(), ..Default::default() };
    let refused = fixture.client.clone().list_stock_movements(fixture.kit.customer(CUSTOMER, request)).await;
    assert_eq!(refused.expect_err("operators").code(), Code::PermissionDenied);
}
