use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use prost_types::FieldMask;
use sqlx::PgPool;
use testkit::{Log, OPERATOR, fields, reason};
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;

impl Fixture {
    pub(super) async fn update(&self, product: Product, paths: &[&str]) -> Result<Product, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(FieldMask { paths });
        let request = self.kit.operator(UpdateProductRequest { product: Some(product), update_mask });
        Ok(self.client.clone().update_product(request).await?.into_inner().product.expect("a product"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_update_changes_what_its_mask_says(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let wanted = Product { title: "Big mug".into(), price: Some(Money::new("EUR", 2_000)), ..product.clone() };
    let priced = fixture.update(wanted.clone(), &["price"]).await.expect("updated");
    assert_eq!((priced.title.as_str(), priced.price), ("Mug", Some(Money::new("EUR", 2_000))));
    let stale = fixture.update(wanted.clone(), &["title"]).await.expect_err("the etag is old");
    assert_eq!(reason(&stale), "ETAG_MISMATCH@souk.product");
    let all = fixture.update(Product { etag: String::new(), ..wanted.clone() }, &[]).await.expect("updated");
    assert_eq!(all.title, "Big mug");
    let sku = fixture.update(wanted, &["sku"]).await.expect_err("immutable");
    assert_eq!(reason(&sku), "UPDATE_MASK_INVALID@souk.product");
    let long = fixture.update(product.clone(), &["x".repeat(100_000).as_str()]).await.expect_err("no such field");
    assert_eq!(reason(&long), "UPDATE_MASK_INVALID@souk.product", "what is refused is not echoed at length");
    let unknown = Product { product_id: Uuid::now_v7().to_string(), ..Default::default() };
    assert_eq!(reason(&fixture.update(unknown, &[]).await.expect_err("unknown")), "PRODUCT_NOT_FOUND@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_that_is_wrong_with_an_update_is_named_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let bad = Product { title: String::new(), price: Some(Money::new("EUR", 0)), ..product.clone() };
    let refused = fixture.update(bad, &["title", "price"]).await.expect_err("both are wrong");
    assert_eq!(fields(&refused), ["product.title", "product.price.minor"]);
    let ask = GetProductRequest { product_id: product.product_id.clone() };
    let read = fixture.client.clone().get_product(ask).await.expect("public").into_inner().product;
    assert_eq!(read, Some(product), "nothing changed");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_update_that_changes_nothing_keeps_the_etag(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    assert_eq!(fixture.update(product.clone(), &["title"]).await.expect("the same"), product);
    let described = Product { description: "Of clay".into(), ..product };
    let described = fixture.update(described, &["description"]).await.expect("described");
    let cleared = Product { description: String::new(), ..described };
    assert_eq!(fixture.update(cleared, &["description"]).await.expect("cleared").description, "");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_updates_from_one_etag_one_wins(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let named = |title: &str| Product { title: title.into(), ..product.clone() };
    let (a, b) = tokio::join!(fixture.update(named("A"), &["title"]), fixture.update(named("B"), &["title"]));
    assert_eq!([&a, &b].iter().filter(|it| it.is_ok()).count(), 1);
    assert_eq!(reason(&a.err().or(b.err()).expect("one lost")), "ETAG_MISMATCH@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_operators_do_to_the_catalogue_leaves_a_trace(db: PgPool) {
    let (fixture, log) = (Fixture::open(db).await, Log::keep());
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let wanted = Product { title: "Big mug".into(), etag: String::new(), ..product.clone() };
    for _ in 0..2 {
        fixture.update(wanted.clone(), &["title"]).await.expect("changed, and the same");
    }
    for _ in 0..2 {
        fixture.archive(&product.product_id).await.expect("archived, and still so");
    }
    let by = format!("actor=\"operator:{OPERATOR}\"");
    for what in ["a product was created", "a product was changed", "a product was archived"] {
        let lines = log.find(what);
        let [line] = lines.as_slice() else { panic!("once, as it was done once: {lines:?}") };
        assert!(line.contains(&by) && line.contains(&product.product_id) && line.contains("MUG-1"), "{line}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn another_sku_is_refused_by_name_and_the_same_one_is_fine(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let other = Product { sku: "MUG-2".into(), ..product.clone() };
    for paths in [&[][..], &["*"]] {
        let refused = fixture.update(other.clone(), paths).await.expect_err("immutable");
        assert_eq!(fields(&refused), ["product.sku"], "{refused:?}");
        assert_eq!(fixture.update(product.clone(), paths).await.expect("the same"), product);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_star_replaces_everything_that_may_change(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let described = Product { description: "Of clay".into(), ..mug("MUG-1", "Mug") };
    let Product { product_id, .. } = fixture.create(described).await.expect("created");
    let wanted = Product { product_id, title: "Cup".into(), price: Some(Money::new("EUR", 900)), ..Default::default() };
    let replaced = fixture.update(wanted.clone(), &["*"]).await.expect("replaced");
    assert_eq!(
        (replaced.title.as_str(), replaced.description.as_str(), replaced.price),
        ("Cup", "", wanted.price.clone())
    );
    let bare = fixture.update(Product { title: String::new(), price: None, ..wanted }, &["*"]).await;
    assert_eq!(fields(&bare.expect_err("both are required")), ["product.title", "product.price"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn titles_are_one_line_that_shows_and_descriptions_may_be_several(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    for bad in [" ", "\u{a0}\u{200b}", "Mug\nfree", "Mug\u{7}", "Mug\u{202e}"] {
        let refused = fixture.create(mug("MUG-2", bad)).await.expect_err(bad);
        assert_eq!(fields(&refused), ["product.title"], "{bad:?}");
        let refused =
            fixture.update(Product { title: bad.into(), ..product.clone() }, &["title"]).await.expect_err(bad);
        assert_eq!(fields(&refused), ["product.title"], "{bad:?}");
    }
    let lines = Product { description: "Of clay.\n\tBlue.".into(), ..product.clone() };
    assert_eq!(fixture.update(lines, &["description"]).await.expect("two lines").description, "Of clay.\n\tBlue.");
    let hidden = Product { description: "Of \u{202e}clay".into(), etag: String::new(), ..product };
    assert_eq!(fields(&fixture.update(hidden, &["description"]).await.expect_err("turned")), ["product.description"]);
}
