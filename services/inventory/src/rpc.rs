use chassis::{RpcResult, accept, respond};
use contracts::souk::inventory::v1::inventory_service_server::InventoryService;
use contracts::souk::inventory::v1::*;
use tonic::Request;

use crate::service::Service;
use crate::{get, low_stock, move_stock, movement};

#[tonic::async_trait]
impl InventoryService for Service {
    async fn get_stock(&self, request: Request<GetStockRequest>) -> RpcResult<GetStockResponse> {
        respond(get::get(self, accept(request).1).await)
    }

    async fn batch_get_stock(&self, request: Request<BatchGetStockRequest>) -> RpcResult<BatchGetStockResponse> {
        respond(get::batch_get(self, accept(request).1).await)
    }

    async fn receive_stock(&self, request: Request<ReceiveStockRequest>) -> RpcResult<ReceiveStockResponse> {
        let (caller, request) = accept(request);
        respond(move_stock::receive(self, &caller, request).await)
    }

    async fn adjust_stock(&self, request: Request<AdjustStockRequest>) -> RpcResult<AdjustStockResponse> {
        let (caller, request) = accept(request);
        respond(move_stock::adjust(self, &caller, request).await)
    }

    async fn set_low_stock_threshold(
        &self,
        request: Request<SetLowStockThresholdRequest>,
    ) -> RpcResult<SetLowStockThresholdResponse> {
        let (caller, request) = accept(request);
        respond(low_stock::set_threshold(self, &caller, request).await)
    }

    async fn list_low_stock(&self, request: Request<ListLowStockRequest>) -> RpcResult<ListLowStockResponse> {
        respond(low_stock::list(self, accept(request).1).await)
    }

    async fn list_stock_movements(
        &self,
        request: Request<ListStockMovementsRequest>,
    ) -> RpcResult<ListStockMovementsResponse> {
        respond(movement::list(self, accept(request).1).await)
    }

    async fn get_reservation(&self, request: Request<GetReservationRequest>) -> RpcResult<GetReservationResponse> {
        respond(get::get_reservation(self, accept(request).1).await)
    }
}
