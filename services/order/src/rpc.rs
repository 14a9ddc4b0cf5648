use chassis::rpc::stream::ResponseStream;
use chassis::{RpcResult, accept, respond};
use contracts::souk::order::v1::order_service_server::OrderService;
use contracts::souk::order::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{cancel, create, fulfill, get, list, pick_list, return_items, search, shipping_address, states, watch};

#[tonic::async_trait]
impl OrderService for Service {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> RpcResult<CreateOrderResponse> {
        let (caller, request) = accept(request);
        respond(create::create(self, &caller, request).await)
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> RpcResult<GetOrderResponse> {
        let (caller, request) = accept(request);
        respond(get::get(self, &caller, request).await)
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> RpcResult<ListOrdersResponse> {
        let (caller, request) = accept(request);
        respond(list::list(self, &caller, request).await)
    }

    async fn cancel_order(&self, request: Request<CancelOrderRequest>) -> RpcResult<CancelOrderResponse> {
        let (caller, request) = accept(request);
        respond(cancel::cancel(self, &caller, request).await)
    }

    async fn list_order_events(&self, request: Request<ListOrderEventsRequest>) -> RpcResult<ListOrderEventsResponse> {
        let (caller, request) = accept(request);
        respond(get::list_events(self, &caller, request).await)
    }

    type WatchOrderStream = ResponseStream<WatchOrderResponse>;

    async fn watch_order(&self, request: Request<WatchOrderRequest>) -> RpcResult<Self::WatchOrderStream> {
        let header = request.metadata().get("last-event-id").map(|it| it.to_str().unwrap_or_default().to_owned());
        let (caller, request) = accept(request);
        respond(watch::watch(self, &caller, header.as_deref(), request).await)
    }

    async fn fulfill_order(&self, request: Request<FulfillOrderRequest>) -> RpcResult<FulfillOrderResponse> {
        let (caller, request) = accept(request);
        respond(fulfill::fulfill(self, &caller, request).await)
    }

    async fn return_items(&self, request: Request<ReturnItemsRequest>) -> RpcResult<ReturnItemsResponse> {
        let (caller, request) = accept(request);
        respond(return_items::return_items(self, &caller, request).await)
    }

    async fn get_pick_list(&self, request: Request<GetPickListRequest>) -> RpcResult<GetPickListResponse> {
        respond(pick_list::get(self, accept(request).1).await)
    }

    async fn search_orders(&self, request: Request<SearchOrdersRequest>) -> RpcResult<SearchOrdersResponse> {
        respond(search::search(self, accept(request).1).await)
    }

    async fn get_shipping_address(
        &self,
        request: Request<GetShippingAddressRequest>,
    ) -> RpcResult<GetShippingAddressResponse> {
        let (caller, request) = accept(request);
        respond(shipping_address::get(self, &caller, request).await)
    }

    async fn update_shipping_address(
        &self,
        request: Request<UpdateShippingAddressRequest>,
    ) -> RpcResult<UpdateShippingAddressResponse> {
        let (caller, request) = accept(request);
        respond(shipping_address::update(self, &caller, request).await)
    }

    async fn batch_get_order_states(
        &self,
        request: Request<BatchGetOrderStatesRequest>,
    ) -> RpcResult<BatchGetOrderStatesResponse> {
        respond(states::batch_get(self, accept(request).1).await)
    }
}
