use chassis::{RpcResult, accept, respond};
use contracts::souk::order::v1::cart_service_server::CartService;
use contracts::souk::order::v1::*;
use tonic::Request;

use super::{clear, get, remove, set};
use crate::service::Service;

#[tonic::async_trait]
impl CartService for Service {
    async fn get_cart(&self, request: Request<GetCartRequest>) -> RpcResult<GetCartResponse> {
        respond(get::get(self, &accept(request).0).await)
    }

    async fn set_cart_item(&self, request: Request<SetCartItemRequest>) -> RpcResult<SetCartItemResponse> {
        let (caller, request) = accept(request);
        respond(set::set(self, &caller, request).await)
    }

    async fn remove_cart_item(&self, request: Request<RemoveCartItemRequest>) -> RpcResult<RemoveCartItemResponse> {
        let (caller, request) = accept(request);
        respond(remove::remove(self, &caller, request).await)
    }

    async fn clear_cart(&self, request: Request<ClearCartRequest>) -> RpcResult<ClearCartResponse> {
        let (caller, request) = accept(request);
        respond(clear::clear(self, &caller, request).await)
    }
}
