//! The product service, for services that ask for prices.

use std::sync::{Arc, Mutex, MutexGuard};

use chassis::RpcResult;
use chassis::rpc::client::Peer;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::product_service_server::{ProductService, ProductServiceServer};
use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use roster::Role;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// A product service that quotes the products that a test gives it, and fails when the test says so.
#[derive(Clone)]
pub struct Catalogue {
    caller: Role,
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Default)]
struct Shelves {
    quotes: Vec<ItemQuote>,
    /// The product whose calls never get a response.
    stalled: Option<String>,
    /// How many of the next calls fail.
    failures: u32,
    calls: u32,
}

impl Catalogue {
    /// The catalogue, and a client of it for the service `caller`, which must use its own certificate.
    pub async fn serve(caller: Role) -> (Self, ProductServiceClient<Peer>) {
        let catalogue = Self { caller, shelves: Arc::default() };
        let peer = super::serve(caller, roster::PRODUCT, ProductServiceServer::new(catalogue.clone())).await;
        (catalogue, ProductServiceClient::new(peer))
    }

    /// Adds an active product. Its id.
    pub fn add(&self, sku: &str, price: Money) -> String {
        let product_id = Uuid::now_v7().to_string();
        let quote = ItemQuote {
            product_id: product_id.clone(),
            state: ProductState::Active.into(),
            sku: sku.into(),
            title: format!("The {sku}"),
            unit_price: Some(price),
        };
        self.shelves().quotes.push(quote);
        product_id
    }

    pub fn price_all(&self, price: Money) {
        for quote in &mut self.shelves().quotes {
            quote.unit_price = Some(price.clone());
        }
    }

    pub fn archive_all(&self) {
        for quote in &mut self.shelves().quotes {
            quote.set_state(ProductState::Archived);
        }
    }

    /// Never responds to calls about this product.
    pub fn stall(&self, product_id: &str) {
        self.shelves().stalled = Some(product_id.to_owned());
    }

    /// Responds UNAVAILABLE to this many of the next calls.
    pub fn fail(&self, calls: u32) {
        self.shelves().failures = calls;
    }

    /// How often it was called, failures included.
    pub fn calls(&self) -> u32 {
        self.shelves().calls
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().expect("no panics")
    }
}

#[tonic::async_trait]
impl ProductService for Catalogue {
    async fn quote_items(&self, request: Request<QuoteItemsRequest>) -> RpcResult<QuoteItemsResponse> {
        super::assert_from(self.caller, &request);
        let stalled = self.shelves().stalled.clone();
        if stalled.is_some_and(|stalled| request.get_ref().product_ids.contains(&stalled)) {
            return std::future::pending().await;
        }
        let mut shelves = self.shelves();
        shelves.calls += 1;
        if shelves.failures > 0 {
            shelves.failures -= 1;
            return Err(Status::unavailable("the test says so"));
        }
        let quotes = request.into_inner().product_ids.into_iter().map(|product_id| {
            let found = shelves.quotes.iter().find(|quote| quote.product_id == product_id).cloned();
            found.unwrap_or(ItemQuote { product_id, ..Default::default() })
        });
        Ok(Response::new(QuoteItemsResponse { quotes: quotes.collect() }))
    }

    async fn create_product(&self, _: Request<CreateProductRequest>) -> RpcResult<CreateProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn update_product(&self, _: Request<UpdateProductRequest>) -> RpcResult<UpdateProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn archive_product(&self, _: Request<ArchiveProductRequest>) -> RpcResult<ArchiveProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_product(&self, _: Request<GetProductRequest>) -> RpcResult<GetProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn batch_get_products(&self, _: Request<BatchGetProductsRequest>) -> RpcResult<BatchGetProductsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_products(&self, _: Request<ListProductsRequest>) -> RpcResult<ListProductsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_archived_products(
        &self,
        _: Request<ListArchivedProductsRequest>,
    ) -> RpcResult<ListArchivedProductsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn search_products(&self, _: Request<SearchProductsRequest>) -> RpcResult<SearchProductsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn create_category(&self, _: Request<CreateCategoryRequest>) -> RpcResult<CreateCategoryResponse> {
        Err(Status::unimplemented(""))
    }

    async fn update_category(&self, _: Request<UpdateCategoryRequest>) -> RpcResult<UpdateCategoryResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_categories(&self, _: Request<ListCategoriesRequest>) -> RpcResult<ListCategoriesResponse> {
        Err(Status::unimplemented(""))
    }
}
