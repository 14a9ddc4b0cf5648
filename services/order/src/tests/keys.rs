//! Each change happens once or not at all.

use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, captured, inventory_event, stock_reserved, try_event, try_key};

use super::Fixture;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn placing_an_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.wanted("k1");
    let other = CreateOrderRequest { payment_method: "pm_other".into(), ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.customer(CUSTOMER, request));
        async move { Ok(client.create_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn cancelling_one(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order_id, another) = (fixture.place().await.to_string(), fixture.place().await.to_string());
    let reason = CancelReason::CustomerRequest.into();
    let request = CancelOrderRequest { request_id: "k1".into(), order_id, reason };
    let other = CancelOrderRequest { order_id: another, ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.customer(CUSTOMER, request));
        async move { Ok(client.cancel_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn fulfilling_one(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    for record in [stock_reserved(order), authorized(order), captured(order, 2_500)] {
        fixture.kit.deliver(record).await;
    }
    let (order_id, carrier, tracking_number) = (order.to_string(), "Royal Mail".into(), "RM-1".into());
    let items = vec![];
    let request_id = "k1".to_owned();
    let request = FulfillOrderRequest { request_id, order_id, carrier, tracking_number, items, ..Default::default() };
    let other = FulfillOrderRequest { tracking_number: "RM-2".into(), ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.operator(request));
        async move { Ok(client.fulfill_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn consuming_the_events_of_peers(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, rejected, declined) = (fixture.place().await, fixture.place().await, fixture.place().await);
    for record in [
        stock_reserved(order),
        authorized(order),
        captured(order, 2_500),
        inventory_event(rejected, Stock::StockRejected(StockRejected::default())),
        stock_reserved(declined),
        testkit::declined(declined),
    ] {
        try_event(&fixture.kit, &record).await;
    }
}
