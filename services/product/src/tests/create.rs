use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;

pub(super) fn mug(sku: &str, title: &str) -> Product {
    Product { sku: sku.into(), title: title.into(), price: Some(Money::new("EUR", 1_250)), ..Default::default() }
}

impl Fixture {
    pub(super) async fn create(&self, product: Product) -> Result<Product, Status> {
        let request = self.kit.operator(CreateProductRequest { product: Some(product), ..Default::default() });
        Ok(self.client.clone().create_product(request).await?.into_inner().product.expect("a product"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_product_is_created_by_operators_and_read_by_anybody(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    assert_eq!(product.state(), ProductState::Active);
    let ask = GetProductRequest { product_id: product.product_id.clone() };
    let read = fixture.client.clone().get_product(ask).await.expect("public").into_inner().product;
    assert_eq!(read, Some(product));

    let by_customer = fixture
        .kit
        .customer(Uuid::now_v7(), CreateProductRequest { product: Some(mug("MUG-2", "Mug")), ..Default::default() });
    let refused = fixture.client.clone().create_product(by_customer).await.expect_err("not an operator");
    assert_eq!((refused.code(), reason(&refused)), (Code::PermissionDenied, "PERMISSION_DENIED@souk.product".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_wrong_with_a_product_is_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let with_price = |price| Product { price, ..mug("MUG-1", "Mug") };
    for (product, field) in [
        (mug("", "Mug"), "product.sku"),
        (mug("mug", "Mug"), "product.sku"),
        (mug("MUG-1", ""), "product.title"),
        (with_price(None), "product.price"),
        (with_price(Some(Money::new("XTS", 1))), "product.price.currency"),
        (with_price(Some(Money::new("EUR", 0))), "product.price.minor"),
        (with_price(Some(Money::new("EUR", 100_000_000))), "product.price.minor"),
    ] {
        let refused = fixture.create(product).await.expect_err(field);
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_sku_belongs_to_one_product(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let taken = fixture.create(mug("MUG-1", "Other")).await.expect_err("taken");
    assert_eq!((taken.code(), reason(&taken)), (Code::AlreadyExists, "SKU_TAKEN@souk.product".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_that_is_wrong_is_named_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let refused = fixture.create(Product::default()).await.expect_err("three are missing");
    assert_eq!(reason(&refused), "REQUEST_INVALID@souk.product");
    assert_eq!(fields(&refused), ["product.sku", "product.title", "product.price"]);
    let priced = Product { price: Some(Money::new("XTS", 1)), ..mug("MUG-1", "") };
    let refused = fixture.create(priced).await.expect_err("two are wrong");
    assert_eq!(fields(&refused), ["product.title", "product.price.currency"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_products_with_one_sku_at_once_one_wins(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (a, b) = tokio::join!(fixture.create(mug("MUG-1", "A")), fixture.create(mug("MUG-1", "B")));
    assert_eq!([&a, &b].iter().filter(|it| it.is_ok()).count(), 1);
    assert_eq!(reason(&a.err().or(b.err()).expect("one lost")), "SKU_TAKEN@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_only_we_say_about_a_product_is_not_taken_over(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let id = Uuid::now_v7().to_string();
    let state = ProductState::Archived.into();
    let wanted = Product { product_id: id.clone(), state, etag: "v9".into(), ..mug("MUG-1", "Mug") };
    let product = fixture.create(wanted).await.expect("created");
    assert_ne!(product.product_id, id);
    assert_eq!((product.state(), product.etag.as_str()), (ProductState::Active, "v1"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn text_that_the_database_cannot_hold_is_the_callers_error(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let title = fixture.create(mug("MUG-1", "M\0g")).await.expect_err("a NUL");
    assert_eq!(fields(&title), ["product.title"]);
    let described = Product { description: "M\0g".into(), ..mug("MUG-1", "Mug") };
    assert_eq!(fields(&fixture.create(described).await.expect_err("a NUL")), ["product.description"]);
}
