use std::sync::Arc;

use chassis::accept;
use contracts::souk::product::v1::product_service_server::ProductService;
use contracts::souk::product::v1::*;
use tonic::{Request, Response, Status};

use crate::{Service, archive, create, get, list, quote, update};

pub(crate) struct Rpc(pub(crate) Arc<Service>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ProductService for Rpc {
    async fn create_product(&self, request: Request<CreateProductRequest>) -> Answer<CreateProductResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(create::create(&self.0, &caller, request).await?))
    }

    async fn update_product(&self, request: Request<UpdateProductRequest>) -> Answer<UpdateProductResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(update::update(&self.0, &caller, request).await?))
    }

    async fn archive_product(&self, request: Request<ArchiveProductRequest>) -> Answer<ArchiveProductResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(archive::archive(&self.0, &caller, request).await?))
    }

    async fn get_product(&self, request: Request<GetProductRequest>) -> Answer<GetProductResponse> {
        Ok(Response::new(get::get(&self.0, accept(request).1).await?))
    }

    async fn batch_get_products(&self, request: Request<BatchGetProductsRequest>) -> Answer<BatchGetProductsResponse> {
        Ok(Response::new(get::batch_get(&self.0, accept(request).1).await?))
    }

    async fn list_products(&self, request: Request<ListProductsRequest>) -> Answer<ListProductsResponse> {
        Ok(Response::new(list::list(&self.0, accept(request).1).await?))
    }

    async fn quote_items(&self, request: Request<QuoteItemsRequest>) -> Answer<QuoteItemsResponse> {
        Ok(Response::new(quote::quote(&self.0, accept(request).1).await?))
    }
}
