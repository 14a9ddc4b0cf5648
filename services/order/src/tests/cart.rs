//! Carts. What orders do with them is in `cart_orders`.

use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::Fixture;

impl Fixture {
    pub(super) fn mug(&self) -> String {
        self.catalogue.add("MUG", Money::new("EUR", 1_250))
    }

    /// The etag of the cart after it.
    pub(super) async fn set(&self, product_id: &str, quantity: i32, etag: &str) -> Result<String, Status> {
        let request = SetCartItemRequest { product_id: product_id.into(), quantity, etag: etag.into() };
        let response = self.carts.clone().set_cart_item(self.kit.customer(CUSTOMER, request)).await?;
        Ok(response.into_inner().etag)
    }

    async fn remove(&self, product_id: &str, etag: &str) -> Result<String, Status> {
        let request = RemoveCartItemRequest { product_id: product_id.into(), etag: etag.into() };
        let response = self.carts.clone().remove_cart_item(self.kit.customer(CUSTOMER, request)).await?;
        Ok(response.into_inner().etag)
    }

    async fn clear(&self, etag: &str) -> Result<String, Status> {
        let request = ClearCartRequest { etag: etag.into() };
        let response = self.carts.clone().clear_cart(self.kit.customer(CUSTOMER, request)).await?;
        Ok(response.into_inner().etag)
    }

    pub(super) async fn cart(&self) -> Cart {
        let response = self.carts.clone().get_cart(self.kit.customer(CUSTOMER, GetCartRequest {})).await;
        response.expect("theirs").into_inner().cart.expect("a success has the cart")
    }

    /// The products of the cart, and how many of each.
    pub(super) async fn quantities(&self) -> Vec<(String, i32)> {
        self.cart().await.items.into_iter().map(|item| (item.product_id, item.quantity)).collect()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn quantities_are_set_and_prices_are_those_of_today(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let empty = fixture.cart().await;
    assert_eq!(
        empty,
        Cart { user_id: CUSTOMER.to_string(), items: vec![], total: None, etag: "v0".into() },
        "nothing was ever added"
    );
    let (mug, cup) = (fixture.mug(), fixture.catalogue.add("CUP", Money::new("EUR", 300)));
    fixture.set(&mug, 2, "").await.expect("set");
    fixture.set(&cup, 1, "").await.expect("set");
    fixture.set(&mug, 3, "").await.expect("set instead of what was there");
    let cart = fixture.cart().await;
    assert_eq!(cart.total, Some(Money::new("EUR", 4_050)));
    let item = |product_id: &str, quantity, sku: &str, minor| CartItem {
        product_id: product_id.into(),
        quantity,
        available: true,
        sku: sku.into(),
        title: format!("The {sku}"),
        unit_price: Some(Money::new("EUR", minor)),
    };
    fixture.kit.context.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(cart.items.len(), 2);
    for it in [item(&mug, 3, "MUG", 1_250), item(&cup, 1, "CUP", 300)] {
        assert!(cart.items.contains(&it), "{cart:?}");
    }
    fixture.catalogue.price_all(Money::new("EUR", 1_000));
    let dearer = fixture.cart().await;
    assert_eq!((dearer.total, dearer.etag), (Some(Money::new("EUR", 4_000)), cart.etag), "no price is stored");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn items_are_in_the_order_in_which_they_were_added(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let products: Vec<_> = (0..5).map(|_| fixture.mug()).rev().collect();
    for product in &products {
        fixture.set(product, 1, "").await.expect("set");
        fixture.kit.context.clock.advance(std::time::Duration::from_secs(1));
    }
    fixture.set(&products[0], 2, "").await.expect("set");
    let ids: Vec<_> = fixture.quantities().await.into_iter().map(|(product_id, _)| product_id).collect();
    assert_eq!(ids, products);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_cannot_be_ordered_is_shown_as_unavailable(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (archived, unknown) = (fixture.mug(), Uuid::now_v7().to_string());
    fixture.catalogue.archive_all();
    let mug = fixture.mug();
    for product in [&archived, &unknown, &mug] {
        fixture.set(product, 1, "").await.expect("set");
    }
    let cart = fixture.cart().await;
    assert_eq!(cart.total, Some(Money::new("EUR", 1_250)), "of what is available");
    let find = |product_id: &str| cart.items.iter().find(|item| item.product_id == product_id).expect("it stays");
    let (archived, unknown) = (find(&archived), find(&unknown));
    assert_eq!((archived.available, archived.sku.as_str(), &archived.unit_price), (false, "MUG", &None));
    assert_eq!((unknown.available, unknown.sku.as_str(), &unknown.unit_price), (false, "", &None));

    fixture.set(&fixture.catalogue.add("CUP", Money::new("USD", 1)), 1, "").await.expect("set");
    assert_eq!(fixture.cart().await.total, None, "no order has two currencies");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_cart_has_a_hundred_products_at_most(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let products: Vec<_> = (0..100).map(|_| fixture.mug()).collect();
    for product in &products {
        fixture.set(product, 1, "").await.expect("set");
    }
    let full = fixture.set(&fixture.mug(), 1, "").await.expect_err("one too many");
    assert_eq!((full.code(), reason(&full)), (Code::FailedPrecondition, "CART_FULL@souk.order".into()));
    fixture.set(&products[7], 2, "").await.expect("it has this product");
    fixture.remove(&products[0], "").await.expect("removed");
    fixture.set(&fixture.mug(), 1, "").await.expect("there is room again");
    assert_eq!(fixture.cart().await.items.len(), 100);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_etag_is_that_of_the_items(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mug, cup) = (fixture.mug(), fixture.mug());
    let first = fixture.set(&mug, 1, "v0").await.expect("an empty cart has an etag");
    assert_eq!(fixture.set(&mug, 1, "").await.expect("set"), first, "nothing changed");
    let second = fixture.set(&cup, 1, &first).await.expect("current");
    let stale = [
        fixture.set(&mug, 5, &first).await.expect_err("stale"),
        fixture.remove(&mug, &first).await.expect_err("stale"),
        fixture.clear(&first).await.expect_err("stale"),
    ];
    for stale in stale {
        assert_eq!((stale.code(), reason(&stale)), (Code::Aborted, "ETAG_MISMATCH@souk.order".into()));
    }
    assert_eq!(fixture.cart().await.etag, second);
    let third = fixture.remove(&mug, &second).await.expect("current");
    assert_ne!(third, second);
    assert_eq!(fixture.remove(&mug, "").await.expect("removed"), third, "it was gone");
    assert_eq!(fixture.quantities().await, [(cup, 1)]);
    let fourth = fixture.clear(&third).await.expect("current");
    assert_eq!(fixture.clear("").await.expect("cleared"), fourth, "it was empty");
    let cart = fixture.cart().await;
    assert_eq!((cart.items, cart.etag), (vec![], fourth));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn devices_that_change_a_cart_at_once_lose_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let products: Vec<_> = (0..40).map(|_| fixture.mug()).collect();
    let mut devices = JoinSet::new();
    for (at, product_id) in products.iter().cloned().enumerate() {
        let quantity = i32::try_from(at).expect("small") + 1;
        let request = SetCartItemRequest { product_id, quantity, etag: String::new() };
        let (mut carts, request) = (fixture.carts.clone(), fixture.kit.customer(CUSTOMER, request));
        devices.spawn(async move { carts.set_cart_item(request).await.expect("set").into_inner().etag });
    }
    let mut etags = devices.join_all().await;
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 40, "each change has its own version");
    let mut there = fixture.quantities().await;
    there.sort();
    let mut wanted: Vec<_> = products.into_iter().zip(1..).collect();
    wanted.sort();
    assert_eq!(there, wanted);
}

/// With the same etag, only one of them changes anything.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_devices_with_one_etag_one_succeeds(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mug, mut devices) = (fixture.mug(), JoinSet::new());
    let etag = fixture.set(&mug, 1, "").await.expect("set");
    for quantity in 2..12 {
        let request = SetCartItemRequest { product_id: mug.clone(), quantity, etag: etag.clone() };
        let (mut carts, request) = (fixture.carts.clone(), fixture.kit.customer(CUSTOMER, request));
        devices.spawn(async move { carts.set_cart_item(request).await.map(|_| quantity) });
    }
    let outcomes = devices.join_all().await;
    let set: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(fixture.quantities().await, [(mug, set[0])]);
    assert_eq!(set.len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn everybody_has_their_own_cart(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.set(&fixture.mug(), 1, "").await.expect("set");
    let other = fixture.kit.customer(Uuid::now_v7(), GetCartRequest {});
    let other = fixture.carts.clone().get_cart(other).await.expect("theirs").into_inner().cart.expect("a cart");
    assert_eq!(other.items, []);
    let operator = fixture.carts.clone().get_cart(fixture.kit.operator(GetCartRequest {})).await.expect("theirs");
    assert_eq!(operator.into_inner().cart.expect("a cart").items, [], "an operator has a cart, too, and sees no other");
    let anonymous = fixture.carts.clone().get_cart(Request::new(GetCartRequest {})).await.expect_err("no token");
    assert_eq!(reason(&anonymous), "TOKEN_MISSING@souk.order");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn bad_items_name_what_is_wrong(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mug = fixture.mug();
    for (product_id, quantity, field) in
        [(mug.as_str(), 0, "quantity"), (&mug, 1_000, "quantity"), (&mug, -1, "quantity"), ("mug", 1, "product_id")]
    {
        let refused = fixture.set(product_id, quantity, "").await.expect_err(field);
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    assert_eq!(fields(&fixture.remove("mug", "").await.expect_err("no id")), ["product_id"]);
}
