use contracts::souk::product::v1::*;
use sqlx::PgPool;
use testkit::reason;
use tonic::{Code, Status};

use super::Fixture;
use super::create::mug;

impl Fixture {
    /// Products with titles in the order of their numbers, of which some have units.
    async fn products(&self, count: usize, in_stock: impl Fn(usize) -> bool) {
        for number in 0..count {
            let sku = format!("{number:04}");
            self.create(mug(&sku, &sku)).await.expect("created");
            // Of some that are sold out, inventory knows nothing.
            if in_stock(number) || number % 2 == 0 {
                self.warehouse.set(&sku, if in_stock(number) { 3 } else { 0 });
            }
        }
    }

    async fn page_in_stock(&self, page_size: i32, page_token: &str) -> Result<(Vec<String>, String), Status> {
        let request =
            ListProductsRequest { page_size, page_token: page_token.into(), in_stock: true, ..Default::default() };
        let page = self.client.clone().list_products(request).await?.into_inner();
        Ok((page.products.into_iter().map(|product| product.sku).collect(), page.next_page_token))
    }

    async fn all_in_stock(&self, page_size: i32) -> (Vec<String>, usize) {
        let (mut skus, mut pages, mut token) = (vec![], 0, String::new());
        loop {
            let (page, next) = self.page_in_stock(page_size, &token).await.expect("inventory responds");
            assert!(page.len() <= usize::try_from(page_size).expect("it is positive"));
            skus.extend(page);
            (pages, token) = (pages + 1, next);
            if token.is_empty() {
                return (skus, pages);
            }
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_sold_out_is_left_out_and_pages_are_full(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.products(12, |number| number % 3 == 0).await;
    let (first, next) = fixture.page_in_stock(2, "").await.expect("inventory responds");
    assert_eq!(first, ["0000", "0003"]);
    let (second, end) = fixture.page_in_stock(0, &next).await.expect("inventory responds");
    assert_eq!((second, end), (vec!["0006".to_owned(), "0009".to_owned()], String::new()));
    assert_eq!(fixture.all_in_stock(1).await.0, ["0000", "0003", "0006", "0009"]);
    let (behind, _) = fixture.titles(100, &next).await;
    assert_eq!(behind.first().map(String::as_str), Some("0004"), "the token is valid without the filter, too");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn behind_many_that_are_sold_out_a_page_ends_early_and_the_next_goes_on(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.products(310, |number| number == 305).await;
    let (empty, next) = fixture.page_in_stock(2, "").await.expect("inventory responds");
    assert!(empty.is_empty() && !next.is_empty(), "{empty:?}");
    assert_eq!(fixture.all_in_stock(2).await, (vec!["0305".to_owned()], 2));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn more_products_than_inventory_is_asked_about_at_once_fit_a_page(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.products(130, |_| true).await;
    let (skus, pages) = fixture.all_in_stock(200).await;
    assert_eq!((skus.len(), pages), (130, 1));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_inventory_only_the_filter_is_refused(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.products(1, |_| true).await;
    fixture.warehouse.close_after(0);
    let refused = fixture.page_in_stock(2, "").await.expect_err("inventory does not respond");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "UNAVAILABLE@souk.product"));
    assert_eq!(fixture.titles(2, "").await.0.len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_found_before_inventory_went_away_is_a_page(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.products(150, |number| number % 10 == 0).await;
    fixture.warehouse.close_after(1);
    let (found, next) = fixture.page_in_stock(50, "").await.expect("inventory responded once");
    assert_eq!(found.len(), 10);
    let (behind, _) = fixture.titles(100, &next).await;
    assert_eq!(behind.first().map(String::as_str), Some("0100"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn too_many_at_once_are_refused_and_an_empty_catalogue_is_not_asked_about(db: PgPool) {
    let fixture = Fixture::open(db).await;
    assert_eq!(fixture.page_in_stock(0, "").await.expect("inventory is not asked"), (vec![], String::new()));
    let all = fixture.service.comparisons.available_permits();
    let taken = fixture.service.comparisons.acquire_many(u32::try_from(all).expect("a few")).await;
    let refused = fixture.page_in_stock(2, "").await.expect_err("others ask");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "OVERLOADED@souk.product"));
    drop(taken);
    fixture.page_in_stock(2, "").await.expect("nobody else asks");
}
