//! The inventory service, for services that ask what is in stock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chassis::RpcResult;
use chassis::rpc::client::Peer;
use contracts::souk::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::souk::inventory::v1::inventory_service_server::{InventoryService, InventoryServiceServer};
use contracts::souk::inventory::v1::*;
use roster::Role;
use tonic::{Request, Response, Status};

/// An inventory service that has the units that a test gives it, and fails when the test says so.
#[derive(Clone)]
pub struct Warehouse {
    caller: Role,
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Default)]
struct Shelves {
    available: HashMap<String, i64>,
    /// How many more calls get a response; None: all.
    responses: Option<u32>,
}

impl Warehouse {
    /// The warehouse, and a client of it for the service `caller`, which must use its own certificate.
    pub async fn serve(caller: Role) -> (Self, InventoryServiceClient<Peer>) {
        let warehouse = Self { caller, shelves: Arc::default() };
        let peer = super::serve(caller, roster::INVENTORY, InventoryServiceServer::new(warehouse.clone())).await;
        (warehouse, InventoryServiceClient::new(peer))
    }

    pub fn set(&self, sku: &str, available: i64) {
        self.shelves.lock().expect("no panics").available.insert(sku.to_owned(), available);
    }

    /// Responds to so many more calls, and UNAVAILABLE from then on.
    pub fn close_after(&self, calls: u32) {
        self.shelves.lock().expect("no panics").responses = Some(calls);
    }
}

#[tonic::async_trait]
impl InventoryService for Warehouse {
    async fn batch_get_stock(&self, request: Request<BatchGetStockRequest>) -> RpcResult<BatchGetStockResponse> {
        super::assert_from(self.caller, &request);
        let skus = request.into_inner().skus;
        assert!((1..=100).contains(&skus.len()), "the contract has limits");
        let mut shelves = self.shelves.lock().expect("no panics");
        match shelves.responses.as_mut() {
            Some(0) => return Err(Status::unavailable("the test says so")),
            Some(left) => *left -= 1,
            None => {}
        }
        let (known, missing_skus): (Vec<_>, _) = skus.into_iter().partition(|sku| shelves.available.contains_key(sku));
        let stocks = known.into_iter().map(|sku| Stock { available: shelves.available[&sku], sku });
        Ok(Response::new(BatchGetStockResponse { stocks: stocks.collect(), missing_skus }))
    }

    async fn get_stock(&self, _: Request<GetStockRequest>) -> RpcResult<GetStockResponse> {
        Err(Status::unimplemented(""))
    }

    async fn receive_stock(&self, _: Request<ReceiveStockRequest>) -> RpcResult<ReceiveStockResponse> {
        Err(Status::unimplemented(""))
    }

    async fn adjust_stock(&self, _: Request<AdjustStockRequest>) -> RpcResult<AdjustStockResponse> {
        Err(Status::unimplemented(""))
    }

    async fn set_low_stock_threshold(
        &self,
        _: Request<SetLowStockThresholdRequest>,
    ) -> RpcResult<SetLowStockThresholdResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_low_stock(&self, _: Request<ListLowStockRequest>) -> RpcResult<ListLowStockResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_stock_movements(
        &self,
        _: Request<ListStockMovementsRequest>,
    ) -> RpcResult<ListStockMovementsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_reservation(&self, _: Request<GetReservationRequest>) -> RpcResult<GetReservationResponse> {
        Err(Status::unimplemented(""))
    }
}
