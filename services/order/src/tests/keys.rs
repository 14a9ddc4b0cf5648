//! Each change happens once or not at all.

use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{try_event, try_key};

use super::Shop;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn placing_an_order(db: PgPool) {
    let shop = Shop::open(db).await;
    let request = shop.wanted("k1");
    let other = CreateOrderRequest { payment_method: "pm_other".into(), ..request.clone() };
    try_key(&shop.db, request, other, |request| {
        let (mut client, request) = (shop.client.clone(), shop.kit.customer(shop.user, request));
        async move { Ok(client.create_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn cancelling_one(db: PgPool) {
    let shop = Shop::open(db).await;
    let (order_id, another) = (shop.place().await.to_string(), shop.place().await.to_string());
    let reason = CancelReason::CustomerRequest.into();
    let request = CancelOrderRequest { request_id: "k1".into(), order_id, reason };
    let other = CancelOrderRequest { order_id: another, ..request.clone() };
    try_key(&shop.db, request, other, |request| {
        let (mut client, request) = (shop.client.clone(), shop.kit.customer(shop.user, request));
        async move { Ok(client.cancel_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn fulfilling_one(db: PgPool) {
    let shop = Shop::open(db).await;
    let order = shop.place().await;
    for record in [shop.stock_reserved(order), shop.authorized(order), shop.captured(order)] {
        shop.consume(record).await;
    }
    let (order_id, carrier, tracking_number) = (order.to_string(), "Royal Mail".into(), "RM-1".into());
    let request = FulfillOrderRequest { request_id: "k1".into(), order_id, carrier, tracking_number };
    let other = FulfillOrderRequest { tracking_number: "RM-2".into(), ..request.clone() };
    try_key(&shop.db, request, other, |request| {
        let (mut client, request) = (shop.client.clone(), shop.kit.operator(request));
        async move { Ok(client.fulfill_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn consuming_the_events_of_peers(db: PgPool) {
    let shop = Shop::open(db).await;
    let (order, rejected, declined) = (shop.place().await, shop.place().await, shop.place().await);
    for record in [
        shop.stock_reserved(order),
        shop.authorized(order),
        shop.captured(order),
        shop.stock(rejected, Stock::StockRejected(StockRejected::default())),
        shop.stock_reserved(declined),
        shop.declined(declined),
    ] {
        try_event(&shop.consumer, &shop.kit.context.clock, &record).await;
    }
}
