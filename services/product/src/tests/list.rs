use contracts::souk::product::v1::*;
use sqlx::PgPool;
use testkit::reason;

use super::Fixture;
use super::create::mug;

impl Fixture {
    pub(super) async fn titles(&self, page_size: i32, page_token: &str) -> (Vec<String>, String) {
        let request = ListProductsRequest { page_size, page_token: page_token.into(), ..Default::default() };
        let page = self.client.clone().list_products(request).await.expect("public").into_inner();
        (page.products.into_iter().map(|product| product.title).collect(), page.next_page_token)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn pages_follow_each_other_by_title(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (sku, title) in [("C", "cup"), ("A", "bowl"), ("B", "bowl"), ("D", "Plate")] {
        fixture.create(mug(sku, title)).await.expect("created");
    }
    let (first, next) = fixture.titles(2, "").await;
    assert_eq!(first, ["Plate", "bowl"]);
    let (second, end) = fixture.titles(2, &next).await;
    assert_eq!((second, end), (vec!["bowl".to_owned(), "cup".to_owned()], String::new()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_longest_titles_have_a_next_page_too(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (sku, letter) in [("A", "\""), ("B", "\u{1F375}")] {
        fixture.create(mug(sku, &letter.repeat(200))).await.expect("200 characters");
    }
    fixture.create(mug("C", &"\u{1F376}".repeat(200))).await.expect("200 characters");
    let (mut seen, mut token) = (0, String::new());
    loop {
        let (titles, next) = fixture.titles(1, &token).await;
        seen += titles.len();
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(seen, 3);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_token_that_is_not_ours_is_refused(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let page = chassis::rpc::page::Page::<(String, uuid::Uuid)>::parse(1, "", "products").expect("the first page");
    let forged = page.cut(&mut vec![(), ()], |()| ("\0".to_owned(), uuid::Uuid::nil()));
    for page_token in ["x".to_owned(), forged] {
        let request = ListProductsRequest { page_size: 1, page_token, ..Default::default() };
        let refused = fixture.client.clone().list_products(request).await.expect_err("not ours");
        assert_eq!(reason(&refused), "PAGE_TOKEN_INVALID@souk.product");
    }
}
