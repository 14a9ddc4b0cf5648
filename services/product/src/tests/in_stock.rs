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
    let (second, end) = fixture.page_in_stock(100, &next).await.expect("inventory responds");
    assert_eq!((second, end), (vec!["0006".to_owned(), "0009".to_owned()], String::new()));
    let (all, _) = fixture.titles(100, "").await;
    assert_eq!(all.len(), 12, "without the filter, all are listed");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn behind_many_that_are_sold_out_a_page_ends_early_and_the_next_goes_on(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.products(45, |number| number == 44).await;
    let (empty, next) = fixture.page_in_stock(2, "").await.expect("inventory responds");
    assert!(empty.is_empty() && !next.is_empty(), "{empty:?}");
    let (skus, pages) = fixture.all_in_stock(2).await;
    assert_eq!((skus, pages), (vec!["0044".to_owned()], 3));
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
    fixture.warehouse.close();
    let refused = fixture.page_in_stock(2, "").await.expect_err("inventory does not respond");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "UNAVAILABLE@souk.product"));
    assert_eq!(fixture.titles(2, "").await.0.len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_page_of_negative_size_is_refused_and_an_empty_catalogue_is_not_asked_about(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let refused = fixture.page_in_stock(-1, "").await.expect_err("negative");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fixture.page_in_stock(0, "").await.expect("inventory is not asked"), (vec![], String::new()));
}
