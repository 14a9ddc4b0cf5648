//! Filters and orders of lists, categories, languages and images of products.

use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;

impl Fixture {
    /// The SKUs of all pages of two products.
    async fn skus(&self, request: &ListProductsRequest) -> Result<Vec<String>, Status> {
        let (mut skus, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListProductsRequest { page_size: 2, page_token, ..request.clone() };
            let page = self.client.clone().list_products(request).await?.into_inner();
            assert!(page.products.len() <= 2);
            skus.extend(page.products.into_iter().map(|it| it.sku));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(skus);
            }
        }
    }

    /// A in the top category, B and C below it, D and E elsewhere; E costs dollars.
    async fn shelves(&self) -> (String, String) {
        let top = self.category("Kitchen", "").await;
        let below = self.category("Mugs", &top).await;
        let shelf = [("A", 300, &top), ("B", 100, &below), ("C", 200, &below), ("D", 100, &String::new())];
        for (sku, minor, category_id) in shelf {
            let price = Some(Money::new("EUR", minor));
            let product = Product { price, category_id: category_id.clone(), ..mug(sku, &format!("Mug {sku}")) };
            self.create(product).await.expect("created");
        }
        let dollars = Product { price: Some(Money::new("USD", 150)), ..mug("E", "Mug E") };
        self.create(dollars).await.expect("created");
        (top, below)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn products_are_filtered_by_category_and_price_and_ordered(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (top, below) = fixture.shelves().await;
    let all = ListProductsRequest::default();
    let (euro, dollar) = (
        ListProductsRequest { currency: "EUR".into(), ..all.clone() },
        ListProductsRequest { currency: "USD".into(), ..all.clone() },
    );
    let with = |category_id: &String| ListProductsRequest { category_id: category_id.clone(), ..all.clone() };
    let by = |order_by: &str, filter: &ListProductsRequest| ListProductsRequest {
        order_by: order_by.into(),
        ..filter.clone()
    };
    let between =
        |min_price_minor, max_price_minor| ListProductsRequest { min_price_minor, max_price_minor, ..euro.clone() };
    for (request, expected) in [
        (all.clone(), "ABCDE"),
        (by("title", &all), "ABCDE"),
        (by("create_time desc", &all), "EDCBA"),
        (with(&top), "ABC"),
        (with(&below), "BC"),
        (by("create_time desc", &with(&top)), "CBA"),
        (euro.clone(), "ABCD"),
        (dollar.clone(), "E"),
        (by("price", &euro), "BDCA"),
        (by("price desc", &euro), "ACDB"),
        (by("price", &dollar), "E"),
        (between(200, 0), "AC"),
        (between(0, 200), "BCD"),
        (between(200, 200), "C"),
        (by("price desc", &between(100, 200)), "CDB"),
        (by("create_time desc", &between(100, 200)), "DCB"),
        (ListProductsRequest { category_id: below.clone(), ..by("price", &euro) }, "BC"),
        (ListProductsRequest { category_id: top.clone(), ..by("price desc", &between(150, 0)) }, "AC"),
    ] {
        assert_eq!(fixture.skus(&request).await.expect("public").concat(), expected, "{request:?}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_wrong_with_a_filter_is_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let all = ListProductsRequest::default();
    for (request, field) in [
        (ListProductsRequest { min_price_minor: 1, ..all.clone() }, "currency"),
        (ListProductsRequest { max_price_minor: 1, ..all.clone() }, "currency"),
        (ListProductsRequest { order_by: "price".into(), ..all.clone() }, "currency"),
        (ListProductsRequest { currency: "euro".into(), ..all.clone() }, "currency"),
        (ListProductsRequest { order_by: "title desc; drop".into(), ..all.clone() }, "order_by"),
        (ListProductsRequest { min_price_minor: -1, ..all.clone() }, "min_price_minor"),
        (ListProductsRequest { category_id: "mugs".into(), ..all.clone() }, "category_id"),
        (
            ListProductsRequest { min_price_minor: 2, max_price_minor: 1, currency: "EUR".into(), ..all.clone() },
            "max_price_minor",
        ),
    ] {
        assert_eq!(fields(&fixture.skus(&request).await.expect_err(field)), [field], "{request:?}");
    }
    let unknown = ListProductsRequest { category_id: Uuid::now_v7().to_string(), ..all };
    assert_eq!(reason(&fixture.skus(&unknown).await.expect_err("unknown")), "CATEGORY_NOT_FOUND@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_token_is_valid_for_its_filter_and_order_only(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.shelves().await;
    let first =
        ListProductsRequest { page_size: 1, order_by: "price".into(), currency: "EUR".into(), ..Default::default() };
    let page = fixture.client.clone().list_products(first.clone()).await.expect("public").into_inner();
    let next = ListProductsRequest { page_token: page.next_page_token, ..first };
    for other in [
        ListProductsRequest { order_by: "price desc".into(), ..next.clone() },
        ListProductsRequest { order_by: "title".into(), ..next.clone() },
        ListProductsRequest { min_price_minor: 1, ..next.clone() },
        ListProductsRequest { currency: "USD".into(), ..next.clone() },
    ] {
        let refused = fixture.client.clone().list_products(other).await.expect_err("another list");
        assert_eq!(reason(&refused), "PAGE_TOKEN_INVALID@souk.product");
    }
    fixture.client.clone().list_products(next).await.expect("its list");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn operators_list_what_is_archived(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mugs = fixture.category("Mugs", "").await;
    for (sku, category_id) in [("A", &mugs), ("B", &String::new()), ("C", &mugs), ("D", &mugs)] {
        let product = Product { category_id: category_id.clone(), ..mug(sku, sku) };
        let product = fixture.create(product).await.expect("created");
        if sku != "D" {
            fixture.archive(&product.product_id).await.expect("archived");
        }
    }
    let list = async |category_id: &str| {
        let (mut skus, mut page_token) = (String::new(), String::new());
        loop {
            let request = ListArchivedProductsRequest { page_size: 1, page_token, category_id: category_id.into() };
            let request = fixture.kit.operator(request);
            let page = fixture.client.clone().list_archived_products(request).await.expect("listed").into_inner();
            skus.extend(page.products.into_iter().map(|it| it.sku));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return skus;
            }
        }
    };
    assert_eq!(list("").await, "CBA");
    assert_eq!(list(&mugs).await, "CA");
    let request = fixture.kit.customer(Uuid::now_v7(), ListArchivedProductsRequest::default());
    let refused = fixture.client.clone().list_archived_products(request).await.expect_err("for operators");
    assert_eq!(reason(&refused), "PERMISSION_DENIED@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_product_has_a_category_a_language_and_images(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let category_id = fixture.category("Mugs", "").await;
    let images = vec![
        Image { url: "https://images.example.com/a.jpg?size=2".into(), alt: "A blue mug".into() },
        Image { url: "https://images.example.com:8443".into(), alt: "From above".into() },
    ];
    let wanted = Product { category_id, language: "en".into(), images, ..mug("MUG-1", "Mug") };
    let product = fixture.create(wanted.clone()).await.expect("created");
    assert_eq!(
        (&product.category_id, &product.language, &product.images),
        (&wanted.category_id, &wanted.language, &wanted.images)
    );
    let read = ListProductsRequest { category_id: wanted.category_id, ..Default::default() };
    let page = fixture.client.clone().list_products(read).await.expect("public").into_inner();
    assert_eq!(page.products, std::slice::from_ref(&product));
    let changed = Product { language: "de".into(), images: product.images[1..].to_vec(), ..product.clone() };
    let changed = fixture.update(changed, &["language", "images"]).await.expect("changed");
    assert_eq!((changed.language.as_str(), changed.images.len()), ("de", 1));
    let bare = Product { category_id: String::new(), images: vec![], language: String::new(), ..changed };
    let bare = fixture.update(bare, &["category_id", "language", "images"]).await.expect("emptied");
    assert_eq!((bare.category_id.as_str(), bare.language.as_str(), bare.images.len()), ("", "", 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_image_is_an_address_that_browsers_load_and_says_what_it_shows(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let image = |url: &str, alt: &str| Image { url: url.into(), alt: alt.into() };
    let good = "https://images.example.com/a.jpg";
    for (images, field) in [
        (vec![image("", "A mug")], "product.images[0].url"),
        (vec![image("http://images.example.com/a.jpg", "A mug")], "product.images[0].url"),
        (vec![image("javascript:alert(1)", "A mug")], "product.images[0].url"),
        (vec![image("https://", "A mug")], "product.images[0].url"),
        (vec![image("https:///a.jpg", "A mug")], "product.images[0].url"),
        (vec![image("https://user:password@example.com/", "A mug")], "product.images[0].url"),
        (vec![image("https://example.com/a b", "A mug")], "product.images[0].url"),
        (vec![image(&format!("https://example.com/{}", "a".repeat(2_000)), "A mug")], "product.images[0].url"),
        (vec![image(good, "A mug"), image(good, "")], "product.images[1].alt"),
        (vec![image(good, "A\nmug")], "product.images[0].alt"),
        (vec![image(good, "A mug"); 11], "product.images"),
    ] {
        let refused = fixture.create(Product { images, ..mug("MUG-1", "Mug") }).await.expect_err(field);
        assert_eq!(fields(&refused), [field], "{refused:?}");
    }
    let language =
        fixture.create(Product { language: "tlh".into(), ..mug("MUG-1", "Mug") }).await.expect_err("Klingon");
    assert_eq!(fields(&language), ["product.language"]);
}
