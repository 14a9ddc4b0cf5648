//! Each change happens once or not at all.

use contracts::souk::inventory::v1::*;
use sqlx::PgPool;
use testkit::{try_event, try_key};
use uuid::Uuid;

use super::Fixture;
use super::reservation::{cancelled, confirmed, placed};

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn receiving_units(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = ReceiveStockRequest { request_id: "k1".into(), sku: "MUG".into(), quantity: 10 };
    let other = ReceiveStockRequest { quantity: 11, ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.operator(request));
        async move { Ok(client.receive_stock(request).await?.into_inner()) }
    })
    .await;
    assert_eq!(fixture.level("MUG").await, (10, 0, 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn adjusting_them(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("r1", "MUG", 10).await.expect("received");
    let reason = AdjustReason::Count.into();
    let request = AdjustStockRequest { request_id: "k1".into(), sku: "MUG".into(), change: -3, reason };
    let other = AdjustStockRequest { change: -4, ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.operator(request));
        async move { Ok(client.adjust_stock(request).await?.into_inner()) }
    })
    .await;
    assert_eq!(fixture.level("MUG").await, (7, 0, 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn holding_selling_and_letting_go(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("r1", "MUG", 10).await.expect("received");
    let (sold, released, short) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for record in [
        placed(sold, &[("MUG", 4)]),
        confirmed(sold),
        placed(released, &[("MUG", 5)]),
        placed(short, &[("MUG", 2)]),
        cancelled(released),
        cancelled(sold),
    ] {
        try_event(&fixture.kit, &record).await;
    }
    assert_eq!(fixture.level("MUG").await, (10, 0, 0));
    assert_eq!(fixture.kit.published(sold).await, ["StockReserved", "StockSold", "StockReturned"]);
}
