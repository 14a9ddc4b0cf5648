//! Orders of the cart: it is emptied with the order, and has its lines back if the order fails.

use std::time::Duration;

use contracts::souk::inventory::v1::StockRejected;
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::PaymentCaptureFailed;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{
    CUSTOMER, authorized, captured, declined, fields, inventory_event, payment_event, reason, stock_reserved,
    try_event, try_key,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::erase::erased;
use super::rebuild::compare;
use crate::cart::put_back_missed;
use crate::erase::erase_addresses;
use crate::expire::expire_due;

fn of_cart(key: &str) -> CreateOrderRequest {
    CreateOrderRequest { request_id: key.into(), payment_method: "pm_card_visa".into(), ..Default::default() }
}

impl Fixture {
    async fn order_cart(&self, key: &str) -> Result<Uuid, Status> {
        let order = self.create(of_cart(key)).await?;
        Ok(order.order_id.parse().expect("a UUID"))
    }

    async fn reject(&self, order: Uuid) {
        self.kit.deliver(inventory_event(order, Stock::StockRejected(StockRejected::default()))).await;
    }

    /// Orders of carts that have not ended.
    async fn remembered(&self) -> i64 {
        sqlx::query_scalar("select count(*) from cart_order").fetch_one(&self.service.db).await.expect("counted")
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_of_the_cart_empties_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let empty = fixture.order_cart("k0").await.expect_err("nothing is in it");
    assert_eq!((empty.code(), reason(&empty)), (Code::FailedPrecondition, "CART_EMPTY@souk.order".into()));
    let (mug, cup) = (fixture.mug(), fixture.catalogue.add("CUP", Money::new("EUR", 300)));
    fixture.set(&mug, 2, "").await.expect("set");
    fixture.set(&cup, 1, "").await.expect("set");

    let priced = fixture.create(CreateOrderRequest { validate_only: true, ..of_cart("") }).await.expect("priced");
    assert_eq!(priced.total, Some(Money::new("EUR", 2_800)));
    assert_eq!(fixture.quantities().await.len(), 2, "it was only priced");
    let order = fixture.create(CreateOrderRequest { expected_total: priced.total, ..of_cart("k1") }).await;
    let order = order.expect("placed");
    let mut lines: Vec<_> = order.items.iter().map(|line| (line.product_id.clone(), line.quantity)).collect();
    lines.sort();
    let mut wanted = vec![(mug, 2), (cup, 1)];
    wanted.sort();
    assert_eq!(lines, wanted);
    assert_eq!(fixture.quantities().await, []);
    assert_eq!(fixture.create(of_cart("k1")).await.expect_err("another request").code(), Code::InvalidArgument);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ordering_the_cart_happens_once_or_not_at_all(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.set(&fixture.mug(), 2, "").await.expect("set");
    let other = CreateOrderRequest { payment_method: "pm_other".into(), ..of_cart("k1") };
    try_key(&fixture.service.db, of_cart("k1"), other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.customer(CUSTOMER, request));
        async move { Ok(client.create_order(request).await?.into_inner()) }
    })
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_cart_is_ordered_as_the_customer_has_seen_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mug, gone) = (fixture.mug(), Uuid::now_v7().to_string());
    let seen = fixture.set(&mug, 2, "").await.expect("set");
    let current = fixture.set(&mug, 3, "").await.expect("set");
    let stale = fixture.create(CreateOrderRequest { cart_etag: seen, ..of_cart("k1") }).await.expect_err("stale");
    assert_eq!((stale.code(), reason(&stale)), (Code::Aborted, "ETAG_MISMATCH@souk.order".into()));
    let dearer = CreateOrderRequest { expected_total: Some(Money::new("EUR", 1)), ..of_cart("k1") };
    assert_eq!(reason(&fixture.create(dearer).await.expect_err("dearer")), "PRICE_CHANGED@souk.order");
    fixture.set(&gone, 1, &current).await.expect("set");
    let unavailable = fixture.order_cart("k1").await.expect_err("unknown");
    assert_eq!(reason(&unavailable), "PRODUCT_UNAVAILABLE@souk.order");
    assert_eq!(fields(&unavailable), ["cart.items[1].product_id"]);
    assert_eq!(fixture.quantities().await, [(mug, 3), (gone, 1)], "nothing was ordered");
}

/// The attempt that was first commits after the other has looked for its response, and before it reads the cart.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_attempt_that_is_overtaken_gets_the_response_of_the_other(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.set(&fixture.mug(), 2, "").await.expect("set");
    let order = fixture.order_cart("k1").await.expect("placed");
    let db = &fixture.service.db;
    sqlx::query("create table response as table idempotency").execute(db).await.expect("kept");
    sqlx::query("delete from idempotency").execute(db).await.expect("as if it had not committed");
    let mut first = db.begin().await.expect("a transaction");
    sqlx::query("lock table cart in access exclusive mode").execute(&mut *first).await.expect("locked");
    let commit = async {
        let waits = "select exists (select from pg_locks where not granted and relation = 'cart'::regclass)";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *first).await.expect("locks can be read") {
            tokio::task::yield_now().await;
        }
        sqlx::query("insert into idempotency table response").execute(&mut *first).await.expect("inserted");
        first.commit().await.expect("committed");
    };
    let (second, ()) = tokio::join!(fixture.order_cart("k1"), commit);
    assert_eq!(second.expect("the same response"), order);
}

/// Nothing is in two orders, and nothing is lost.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_cart_that_changes_while_it_is_ordered_is_ordered_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for round in 0..10 {
        let product_ids: Vec<_> = (0..3).map(|_| fixture.mug()).collect();
        fixture.set(&product_ids[0], 1, "").await.expect("set");
        let mut devices = JoinSet::new();
        for device in 0..4 {
            let request = fixture.kit.customer(CUSTOMER, of_cart(&format!("k{round}-{device}")));
            let mut client = fixture.client.clone();
            devices.spawn(async move {
                match client.create_order(request).await {
                    Ok(response) => response.into_inner().order.map_or(vec![], |order| order.items),
                    Err(status) => {
                        let known = ["CART_CHANGED@souk.order", "CART_EMPTY@souk.order"];
                        assert!(known.contains(&reason(&status).as_str()), "{status:?}");
                        vec![]
                    }
                }
            });
        }
        for product_id in &product_ids[1..] {
            let request = SetCartItemRequest { product_id: product_id.clone(), quantity: 1, etag: String::new() };
            let (mut carts, request) = (fixture.carts.clone(), fixture.kit.customer(CUSTOMER, request));
            devices.spawn(async move { carts.set_cart_item(request).await.map(|_| vec![]).expect("set") });
        }
        let ordered = devices.join_all().await.into_iter().flatten().map(|line: OrderLine| line.product_id);
        let left = fixture.quantities().await.into_iter().map(|(product_id, _)| product_id);
        let mut all: Vec<_> = ordered.chain(left).collect();
        all.sort();
        let mut wanted = product_ids;
        wanted.sort();
        assert_eq!(all, wanted, "each is ordered or in the cart");
        fixture
            .carts
            .clone()
            .clear_cart(fixture.kit.customer(CUSTOMER, ClearCartRequest::default()))
            .await
            .expect("clear");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_lines_of_an_order_that_fails_go_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mug, cup) = (fixture.mug(), fixture.mug());
    let wanted = vec![(mug.clone(), 2), (cup.clone(), 1)];
    fixture.set(&mug, 2, "").await.expect("set");
    fixture.kit.context.clock.advance(Duration::from_secs(1));
    fixture.set(&cup, 1, "").await.expect("set");

    let rejected = fixture.order_cart("k1").await.expect("placed");
    let emptied = fixture.cart().await.etag;
    fixture.reject(rejected).await;
    assert_eq!(fixture.quantities().await, wanted, "rejected");
    assert_ne!(fixture.cart().await.etag, emptied);

    let failed = fixture.order_cart("k2").await.expect("placed");
    fixture.kit.deliver(stock_reserved(failed)).await;
    fixture.kit.deliver(declined(failed)).await;
    assert_eq!(fixture.quantities().await, wanted, "its payment failed");

    let lost = fixture.order_cart("k3").await.expect("placed");
    fixture.kit.deliver(stock_reserved(lost)).await;
    fixture.kit.deliver(authorized(lost)).await;
    let refused = Payment::PaymentCaptureFailed(PaymentCaptureFailed { reason: "CARD_DECLINED".into() });
    fixture.kit.deliver(payment_event(lost, refused)).await;
    assert_eq!(fixture.quantities().await, wanted, "its capture failed");

    fixture.order_cart("k4").await.expect("placed");
    fixture.kit.context.clock.advance(Duration::from_secs(901));
    expire_due(fixture.service.clone()).await.expect("one is due");
    assert_eq!(fixture.quantities().await, wanted, "expired");
    assert_eq!(fixture.remembered().await, 0);
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (4, vec![]), "orders are what their events say");
}

/// As by a replica of the release that knew no carts.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_lines_of_an_order_that_another_release_has_ended_go_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mug, db) = (fixture.mug(), &fixture.service.db);
    fixture.set(&mug, 2, "").await.expect("set");
    let order = fixture.order_cart("k1").await.expect("placed");
    put_back_missed(fixture.service.clone()).await.expect("nothing to do");
    assert_eq!(fixture.quantities().await, [], "it goes on");
    let sql = r#"update "order" set state = 'EXPIRED' where order_id = $1"#;
    sqlx::query(sql).bind(order).execute(db).await.expect("ended");
    for _ in 0..2 {
        put_back_missed(fixture.service.clone()).await.expect("put back");
        assert_eq!(fixture.quantities().await, [(mug.clone(), 2)]);
    }
    assert_eq!(fixture.remembered().await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_lines_of_other_orders_do_not(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mug = fixture.mug();
    fixture.set(&mug, 2, "").await.expect("set");
    let cancelled = fixture.order_cart("k1").await.expect("placed");
    fixture.cancel(cancelled, "c1").await.expect("pending");
    assert_eq!(fixture.quantities().await, [], "the customer wants no more of it");

    fixture.set(&mug, 2, "").await.expect("set");
    let delivered = fixture.order_cart("k2").await.expect("placed");
    for record in [stock_reserved(delivered), authorized(delivered), captured(delivered, 2_500)] {
        fixture.kit.deliver(record).await;
    }
    assert_eq!(fixture.remembered().await, 1, "it may still fail");
    fixture.fulfill(delivered, "f1").await.expect("paid");
    assert_eq!(fixture.quantities().await, [], "it is on its way");
    assert_eq!(fixture.remembered().await, 0);

    let direct = fixture.place().await;
    fixture.reject(direct).await;
    assert_eq!(fixture.quantities().await, [], "it did not come from the cart");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_in_the_cart_again_is_not_added_twice(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let products: Vec<_> = (0..3).map(|_| fixture.mug()).collect();
    for product in &products {
        fixture.set(product, 5, "").await.expect("set");
        fixture.kit.context.clock.advance(Duration::from_secs(1));
    }
    let order = fixture.order_cart("k1").await.expect("placed");
    fixture.set(&products[0], 2, "").await.expect("set");
    fixture.kit.context.clock.advance(Duration::from_secs(1));
    fixture.set(&products[1], 7, "").await.expect("set");
    fixture.reject(order).await;
    let wanted = [(products[0].clone(), 5), (products[1].clone(), 7), (products[2].clone(), 5)];
    assert_eq!(fixture.quantities().await, wanted);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_cart_that_is_full_again_stays_so(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (first, second) = (fixture.mug(), fixture.mug());
    fixture.set(&first, 1, "").await.expect("set");
    fixture.kit.context.clock.advance(Duration::from_secs(1));
    fixture.set(&second, 1, "").await.expect("set");
    let order = fixture.order_cart("k1").await.expect("placed");
    for _ in 0..99 {
        fixture.set(&fixture.mug(), 1, "").await.expect("set");
    }
    fixture.reject(order).await;
    let cart = fixture.quantities().await;
    assert_eq!(cart.len(), 100);
    assert!(cart.contains(&(first, 1)) && !cart.contains(&(second, 1)), "as many lines as there is room for");
}

/// Once, however often and wherever the event's transaction is cut off, and for several orders at once.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn lines_go_back_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mug, cup) = (fixture.mug(), fixture.mug());
    let mut orders = vec![];
    for (at, product) in [&mug, &cup, &mug].into_iter().enumerate() {
        fixture.set(product, 2, "").await.expect("set");
        orders.push(fixture.order_cart(&format!("k{at}")).await.expect("placed"));
    }
    let rejected = |order| inventory_event(order, Stock::StockRejected(StockRejected::default()));
    try_event(&fixture.kit, &rejected(orders[0])).await;
    assert_eq!(fixture.quantities().await, [(mug.clone(), 2)]);
    let set = [rejected(orders[1]), rejected(orders[2])];
    fixture.kit.deliver_together(&set).await;
    fixture.kit.deliver_together(&set).await;
    let mut quantities = fixture.quantities().await;
    quantities.sort();
    let mut wanted = vec![(mug, 2), (cup, 2)];
    wanted.sort();
    assert_eq!(quantities, wanted);
    assert_eq!(fixture.kit.parked().await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_cart_of_an_erased_user_goes_and_does_not_come_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.set(&fixture.mug(), 2, "").await.expect("set");
    let order = fixture.order_cart("k1").await.expect("placed");
    fixture.set(&fixture.mug(), 1, "").await.expect("set");
    fixture.kit.deliver(erased(CUSTOMER)).await;
    erase_addresses(fixture.service.clone()).await.expect("erased");
    fixture.reject(order).await;
    let carts = "select (select count(*) from cart) + (select count(*) from cart_item)";
    let count = async || sqlx::query_scalar::<_, i64>(carts).fetch_one(&fixture.service.db).await.expect("counted");
    assert_eq!(count().await, 0, "there is no cart to which lines could go back");
    // With an access token that was valid a moment longer.
    fixture.set(&fixture.mug(), 1, "").await.expect("set");
    fixture.kit.context.clock.advance(Duration::from_secs(60));
    erase_addresses(fixture.service.clone()).await.expect("erased");
    assert_eq!(count().await, 0);
}
