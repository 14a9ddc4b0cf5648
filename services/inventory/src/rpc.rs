use std::sync::Arc;

use chassis::accept;
use contracts::souk::inventory::v1::inventory_service_server::InventoryService;
use contracts::souk::inventory::v1::*;
use tonic::{Request, Response, Status};

use crate::{Service, get, move_stock};

pub(crate) struct Rpc(pub(crate) Arc<Service>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl InventoryService for Rpc {
    async fn get_stock(&self, request: Request<GetStockRequest>) -> Answer<GetStockResponse> {
        Ok(Response::new(get::get(&self.0, accept(request).1).await?))
    }

    async fn batch_get_stock(&self, request: Request<BatchGetStockRequest>) -> Answer<BatchGetStockResponse> {
        Ok(Response::new(get::batch_get(&self.0, accept(request).1).await?))
    }

    async fn receive_stock(&self, request: Request<ReceiveStockRequest>) -> Answer<ReceiveStockResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(move_stock::receive(&self.0, &caller, request).await?))
    }

    async fn adjust_stock(&self, request: Request<AdjustStockRequest>) -> Answer<AdjustStockResponse> {
        let (caller, request) = accept(request);
        Ok(Response::new(move_stock::adjust(&self.0, &caller, request).await?))
    }

    async fn get_reservation(&self, request: Request<GetReservationRequest>) -> Answer<GetReservationResponse> {
        Ok(Response::new(get::get_reservation(&self.0, accept(request).1).await?))
    }
}
