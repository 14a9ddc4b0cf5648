use chassis::{RpcResult, accept, respond};
use contracts::souk::product::v1::product_service_server::ProductService;
use contracts::souk::product::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{
    archive, create, create_category, get, in_stock, list, list_categories, quote, search, update, update_category,
};

#[tonic::async_trait]
impl ProductService for Service {
    async fn create_product(&self, request: Request<CreateProductRequest>) -> RpcResult<CreateProductResponse> {
        let (caller, request) = accept(request);
        respond(create::create(self, &caller, request).await)
    }

    async fn update_product(&self, request: Request<UpdateProductRequest>) -> RpcResult<UpdateProductResponse> {
        let (caller, request) = accept(request);
        respond(update::update(self, &caller, request).await)
    }

    async fn archive_product(&self, request: Request<ArchiveProductRequest>) -> RpcResult<ArchiveProductResponse> {
        let (caller, request) = accept(request);
        respond(archive::archive(self, &caller, request).await)
    }

    async fn get_product(&self, request: Request<GetProductRequest>) -> RpcResult<GetProductResponse> {
        respond(get::get(self, accept(request).1).await)
    }

    async fn batch_get_products(
        &self,
        request: Request<BatchGetProductsRequest>,
    ) -> RpcResult<BatchGetProductsResponse> {
        respond(get::batch_get(self, accept(request).1).await)
    }

    async fn list_products(&self, request: Request<ListProductsRequest>) -> RpcResult<ListProductsResponse> {
        let (caller, request) = accept(request);
        respond(in_stock::list(self, &caller, request).await)
    }

    async fn list_archived_products(
        &self,
        request: Request<ListArchivedProductsRequest>,
    ) -> RpcResult<ListArchivedProductsResponse> {
        respond(list::list_archived(self, accept(request).1).await)
    }

    async fn search_products(&self, request: Request<SearchProductsRequest>) -> RpcResult<SearchProductsResponse> {
        respond(search::search(self, accept(request).1).await)
    }

    async fn create_category(&self, request: Request<CreateCategoryRequest>) -> RpcResult<CreateCategoryResponse> {
        let (caller, request) = accept(request);
        respond(create_category::create(self, &caller, request).await)
    }

    async fn update_category(&self, request: Request<UpdateCategoryRequest>) -> RpcResult<UpdateCategoryResponse> {
        let (caller, request) = accept(request);
        respond(update_category::update(self, &caller, request).await)
    }

    async fn list_categories(&self, request: Request<ListCategoriesRequest>) -> RpcResult<ListCategoriesResponse> {
        respond(list_categories::list(self, accept(request).1).await)
    }

    async fn quote_items(&self, request: Request<QuoteItemsRequest>) -> RpcResult<QuoteItemsResponse> {
        respond(quote::quote(self, accept(request).1).await)
    }
}
