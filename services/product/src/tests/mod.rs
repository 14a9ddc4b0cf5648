mod archive;
mod create;
mod get;
mod list;
mod quote;
mod update;
mod wire;

use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use prost_types::FieldMask;
use sqlx::PgPool;
use testkit::Kit;
use tonic::Status;
use tonic::transport::Channel;

use crate::{Service, role};

/// The service, and an operator at its client.
pub(super) struct Shelf {
    pub(super) kit: Kit,
    pub(super) client: ProductServiceClient<Channel>,
    pub(super) channel: Channel,
}

pub(super) fn mug(sku: &str, title: &str) -> Product {
    Product { sku: sku.into(), title: title.into(), price: Some(Money::new("EUR", 1_250)), ..Default::default() }
}

impl Shelf {
    pub(super) async fn open(db: PgPool) -> Self {
        let kit = Kit::new();
        let service = Service { db, clock: kit.context.clock.clone() };
        let channel = kit.serve(role(service, ([127, 0, 0, 1], 0).into(), &kit.context)).await;
        Self { kit, client: ProductServiceClient::new(channel.clone()), channel }
    }

    pub(super) async fn create(&self, product: Product) -> Result<Product, Status> {
        let request = self.kit.operator(CreateProductRequest { product: Some(product) });
        Ok(self.client.clone().create_product(request).await?.into_inner().product.expect("a product"))
    }

    pub(super) async fn update(&self, product: Product, paths: &[&str]) -> Result<Product, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(FieldMask { paths });
        let request = self.kit.operator(UpdateProductRequest { product: Some(product), update_mask });
        Ok(self.client.clone().update_product(request).await?.into_inner().product.expect("a product"))
    }

    pub(super) async fn archive(&self, product_id: &str) -> Result<Product, Status> {
        let request = self.kit.operator(ArchiveProductRequest { product_id: product_id.into() });
        Ok(self.client.clone().archive_product(request).await?.into_inner().product.expect("a product"))
    }

    pub(super) async fn titles(&self, page_size: i32, page_token: &str) -> (Vec<String>, String) {
        let request = ListProductsRequest { page_size, page_token: page_token.into() };
        let page = self.client.clone().list_products(request).await.expect("public").into_inner();
        (page.products.into_iter().map(|product| product.title).collect(), page.next_page_token)
    }
}
