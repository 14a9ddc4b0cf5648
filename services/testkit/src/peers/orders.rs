//! The order service, for services that hold something for orders and ask what became of them.

use chassis::RpcResult;
use chassis::rpc::client::Peer;
use chassis::rpc::stream::ResponseStream;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::order_service_server::{OrderService, OrderServiceServer};
use contracts::souk::order::v1::*;
use roster::Role;
use tonic::{Request, Response, Status};

struct AllAlike {
    caller: Role,
    state: OrderState,
    version: i64,
}

/// A client of an order service in which every order is in this state, at this version, for the service `caller`, which must use
/// its own certificate.
pub async fn serve_orders(caller: Role, state: OrderState, version: i64) -> OrderServiceClient<Peer> {
    let orders = OrderServiceServer::new(AllAlike { caller, state, version });
    OrderServiceClient::new(super::serve(caller, roster::ORDER, orders).await)
}

#[tonic::async_trait]
impl OrderService for AllAlike {
    async fn batch_get_order_states(
        &self,
        request: Request<BatchGetOrderStatesRequest>,
    ) -> RpcResult<BatchGetOrderStatesResponse> {
        super::assert_from(self.caller, &request);
        let (state, version) = (self.state.into(), self.version);
        let orders = request.into_inner().order_ids.into_iter();
        let orders = orders.map(|order_id| OrderStatus { order_id, state, version }).collect();
        Ok(Response::new(BatchGetOrderStatesResponse { orders }))
    }

    async fn create_order(&self, _: Request<CreateOrderRequest>) -> RpcResult<CreateOrderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_order(&self, _: Request<GetOrderRequest>) -> RpcResult<GetOrderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_orders(&self, _: Request<ListOrdersRequest>) -> RpcResult<ListOrdersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_order(&self, _: Request<CancelOrderRequest>) -> RpcResult<CancelOrderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_order_events(&self, _: Request<ListOrderEventsRequest>) -> RpcResult<ListOrderEventsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn return_items(&self, _: Request<ReturnItemsRequest>) -> RpcResult<ReturnItemsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn search_orders(&self, _: Request<SearchOrdersRequest>) -> RpcResult<SearchOrdersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_shipping_address(
        &self,
        _: Request<GetShippingAddressRequest>,
    ) -> RpcResult<GetShippingAddressResponse> {
        Err(Status::unimplemented(""))
    }

    async fn update_shipping_address(
        &self,
        _: Request<UpdateShippingAddressRequest>,
    ) -> RpcResult<UpdateShippingAddressResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_pick_list(&self, _: Request<GetPickListRequest>) -> RpcResult<GetPickListResponse> {
        Err(Status::unimplemented(""))
    }

    type WatchOrderStream = ResponseStream<WatchOrderResponse>;

    async fn watch_order(&self, _: Request<WatchOrderRequest>) -> RpcResult<Self::WatchOrderStream> {
        Err(Status::unimplemented(""))
    }

    async fn fulfill_order(&self, _: Request<FulfillOrderRequest>) -> RpcResult<FulfillOrderResponse> {
        Err(Status::unimplemented(""))
    }
}
