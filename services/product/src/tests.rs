use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use prost_types::FieldMask;
use sqlx::PgPool;
use testkit::{Kit, fields, reason};
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{Service, role};

struct Shelf {
    kit: Kit,
    client: ProductServiceClient<Channel>,
}

fn mug(sku: &str, title: &str) -> Product {
    Product { sku: sku.into(), title: title.into(), price: Some(Money::new("EUR", 1_250)), ..Default::default() }
}

impl Shelf {
    async fn open(db: PgPool) -> Self {
        let kit = Kit::new();
        let service = Service { db, clock: kit.context.clock.clone() };
        let channel = kit.serve(role(service, ([127, 0, 0, 1], 0).into(), &kit.context)).await;
        Self { kit, client: ProductServiceClient::new(channel) }
    }

    async fn create(&self, product: Product) -> Result<Product, Status> {
        let request = self.kit.operator(CreateProductRequest { product: Some(product) });
        Ok(self.client.clone().create_product(request).await?.into_inner().product.expect("a product"))
    }

    async fn update(&self, product: Product, paths: &[&str]) -> Result<Product, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(FieldMask { paths });
        let request = self.kit.operator(UpdateProductRequest { product: Some(product), update_mask });
        Ok(self.client.clone().update_product(request).await?.into_inner().product.expect("a product"))
    }

    async fn archive(&self, product_id: &str) -> Result<Product, Status> {
        let request = self.kit.operator(ArchiveProductRequest { product_id: product_id.into() });
        Ok(self.client.clone().archive_product(request).await?.into_inner().product.expect("a product"))
    }

    async fn titles(&self, page_size: i32, page_token: &str) -> (Vec<String>, String) {
        let request = ListProductsRequest { page_size, page_token: page_token.into() };
        let page = self.client.clone().list_products(request).await.expect("public").into_inner();
        (page.products.into_iter().map(|product| product.title).collect(), page.next_page_token)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_product_is_created_by_operators_and_read_by_anybody(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let product = shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    assert_eq!(product.state(), ProductState::Active);
    let ask = GetProductRequest { product_id: product.product_id.clone() };
    let read = shelf.client.clone().get_product(ask).await.expect("public").into_inner().product;
    assert_eq!(read, Some(product));

    let by_customer = shelf.kit.customer(Uuid::now_v7(), CreateProductRequest { product: Some(mug("MUG-2", "Mug")) });
    let refused = shelf.client.clone().create_product(by_customer).await.expect_err("not an operator");
    assert_eq!((refused.code(), reason(&refused)), (Code::PermissionDenied, "PERMISSION_DENIED@souk.product".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_wrong_with_a_product_is_named(db: PgPool) {
    let shelf = Shelf::open(db).await;
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
        let refused = shelf.create(product).await.expect_err(field);
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_sku_belongs_to_one_product(db: PgPool) {
    let shelf = Shelf::open(db).await;
    shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    let taken = shelf.create(mug("MUG-1", "Other")).await.expect_err("taken");
    assert_eq!((taken.code(), reason(&taken)), (Code::AlreadyExists, "SKU_TAKEN@souk.product".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_update_changes_what_its_mask_says(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let product = shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    let wanted = Product { title: "Big mug".into(), price: Some(Money::new("EUR", 2_000)), ..product.clone() };
    let priced = shelf.update(wanted.clone(), &["price"]).await.expect("updated");
    assert_eq!((priced.title.as_str(), priced.price), ("Mug", Some(Money::new("EUR", 2_000))));
    let stale = shelf.update(wanted.clone(), &["title"]).await.expect_err("the etag is old");
    assert_eq!(reason(&stale), "ETAG_MISMATCH@souk.product");
    let all = shelf.update(Product { etag: String::new(), ..wanted.clone() }, &[]).await.expect("updated");
    assert_eq!(all.title, "Big mug");
    let sku = shelf.update(wanted, &["sku"]).await.expect_err("immutable");
    assert_eq!(reason(&sku), "UPDATE_MASK_INVALID@souk.product");
    let nobody = Product { product_id: Uuid::now_v7().to_string(), ..Default::default() };
    assert_eq!(reason(&shelf.update(nobody, &[]).await.expect_err("unknown")), "PRODUCT_NOT_FOUND@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_archived_product_is_read_but_neither_listed_nor_changed(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let product = shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    let archived = shelf.archive(&product.product_id).await.expect("archived");
    assert_eq!(archived.state(), ProductState::Archived);
    assert_eq!(shelf.archive(&product.product_id).await.expect("again"), archived);
    assert_eq!(shelf.titles(0, "").await.0, Vec::<String>::new());
    let late = Product { etag: String::new(), ..product };
    assert_eq!(reason(&shelf.update(late, &["title"]).await.expect_err("archived")), "PRODUCT_ARCHIVED@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn pages_follow_each_other_by_title(db: PgPool) {
    let shelf = Shelf::open(db).await;
    for (sku, title) in [("C", "cup"), ("A", "bowl"), ("B", "bowl"), ("D", "Plate")] {
        shelf.create(mug(sku, title)).await.expect("created");
    }
    let (first, next) = shelf.titles(2, "").await;
    assert_eq!(first, ["Plate", "bowl"]);
    let (second, end) = shelf.titles(2, &next).await;
    assert_eq!((second, end), (vec!["bowl".to_owned(), "cup".to_owned()], String::new()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn quotes_are_for_the_order_service_and_in_the_order_asked(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let product = shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    let unknown = Uuid::now_v7().to_string();
    let ask = QuoteItemsRequest { product_ids: vec![unknown.clone(), product.product_id.clone()] };
    let quotes = shelf.client.clone().quote_items(shelf.kit.service("order", ask.clone())).await.expect("for orders");
    let quotes = quotes.into_inner().quotes;
    assert_eq!((quotes[0].product_id.as_str(), quotes[0].state()), (unknown.as_str(), ProductState::Unspecified));
    assert_eq!((quotes[1].sku.as_str(), quotes[1].unit_price.clone()), ("MUG-1", Some(Money::new("EUR", 1_250))));
    let stranger = shelf.client.clone().quote_items(shelf.kit.operator(ask)).await.expect_err("not a service");
    assert_eq!(stranger.code(), Code::PermissionDenied);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_batch_says_what_is_missing(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let product = shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    let unknown = Uuid::now_v7().to_string();
    let ask = BatchGetProductsRequest { product_ids: vec![unknown.clone(), product.product_id.clone()] };
    let batch = shelf.client.clone().batch_get_products(ask).await.expect("public").into_inner();
    assert_eq!((batch.products, batch.missing_product_ids), (vec![product], vec![unknown]));
}
