use contracts::souk::product::v1::*;
use sqlx::PgPool;
use testkit::reason;
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;

impl Fixture {
    pub(super) async fn archive(&self, product_id: &str) -> Result<Product, Status> {
        let request = self.kit.operator(ArchiveProductRequest { product_id: product_id.into() });
        Ok(self.client.clone().archive_product(request).await?.into_inner().product.expect("a product"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_archived_product_is_read_but_neither_listed_nor_changed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let archived = fixture.archive(&product.product_id).await.expect("archived");
    assert_eq!(archived.state(), ProductState::Archived);
    assert_eq!(fixture.archive(&product.product_id).await.expect("again"), archived);
    assert_eq!(fixture.titles(0, "").await.0, Vec::<String>::new());
    let late = Product { etag: String::new(), ..product };
    assert_eq!(reason(&fixture.update(late, &["title"]).await.expect_err("archived")), "PRODUCT_ARCHIVED@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_unknown_product_is_not_archived(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let refused = fixture.archive(&Uuid::now_v7().to_string()).await.expect_err("unknown");
    assert_eq!(reason(&refused), "PRODUCT_NOT_FOUND@souk.product");
}
