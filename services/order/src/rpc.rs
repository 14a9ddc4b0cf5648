use std::sync::Arc;

use chassis::accept;
use contracts::souk::order::v1::order_service_server::OrderService;
use contracts::souk::order::v1::*;
use tonic::{Request, Response, Status};

use crate::service::Service;
use crate::{cancel, create, fulfill, get, list, states};

pub(crate) struct Rpc(pub(crate) Arc<Service>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OrderService for Rpc {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Answer<CreateOrderResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(create::create(&self.0, &caller, request).await?))
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Answer<GetOrderResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(get::get(&self.0, &caller, request).await?))
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Answer<ListOrdersResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(list::list(&self.0, &caller, request).await?))
    }

    async fn cancel_order(&self, request: Request<CancelOrderRequest>) -> Answer<CancelOrderResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(cancel::cancel(&self.0, &caller, request).await?))
    }

    async fn list_order_events(&self, request: Request<ListOrderEventsRequest>) -> Answer<ListOrderEventsResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(get::list_events(&self.0, &caller, request).await?))
    }

    async fn fulfill_order(&self, request: Request<FulfillOrderRequest>) -> Answer<FulfillOrderResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(fulfill::fulfill(&self.0, &caller, request).await?))
    }

    async fn batch_get_order_states(
        &self,
        request: Request<BatchGetOrderStatesRequest>,
    ) -> Answer<BatchGetOrderStatesResponse> {
        Ok(Response::new(states::batch_get(&self.0, accept(request).1).await?))
    }
}
