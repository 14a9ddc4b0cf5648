use std::net::SocketAddr;
use std::time::Duration;

use chassis::step::Did;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::order_service_server::{OrderService, OrderServiceServer};
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Store, placed};
use crate::stale::settle_stale;

/// An order service in which every order is cancelled.
struct AllCancelled;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OrderService for AllCancelled {
    async fn batch_get_order_states(
        &self,
        request: Request<BatchGetOrderStatesRequest>,
    ) -> Answer<BatchGetOrderStatesResponse> {
        let state = OrderState::Cancelled.into();
        let orders = request.into_inner().order_ids.into_iter();
        let orders = orders.map(|order_id| OrderStatus { order_id, state, version: 4 }).collect();
        Ok(Response::new(BatchGetOrderStatesResponse { orders }))
    }

    async fn create_order(&self, _: Request<CreateOrderRequest>) -> Answer<CreateOrderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_order(&self, _: Request<GetOrderRequest>) -> Answer<GetOrderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_orders(&self, _: Request<ListOrdersRequest>) -> Answer<ListOrdersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_order(&self, _: Request<CancelOrderRequest>) -> Answer<CancelOrderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_order_events(&self, _: Request<ListOrderEventsRequest>) -> Answer<ListOrderEventsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn fulfill_order(&self, _: Request<FulfillOrderRequest>) -> Answer<FulfillOrderResponse> {
        Err(Status::unimplemented(""))
    }
}

async fn serve_orders() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(Server::builder().add_service(OrderServiceServer::new(AllCancelled)).serve_with_incoming(incoming));
    address
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_old_hold_is_settled_by_what_became_of_its_order(db: PgPool) {
    let address = serve_orders().await;
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect_lazy();
    let store = Store::open_with(db, OrderServiceClient::new(channel)).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(placed(order, &[("MUG", 4)])).await;

    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Nothing, "it is not old");
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
    assert_eq!(store.level("MUG").await, (10, 0, 0));
    assert_eq!(store.published(order).await, ["StockReserved", "StockReleased"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_orders_cannot_be_asked_a_hold_stays(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    store.hear(placed(Uuid::now_v7(), &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    let failed = settle_stale(store.service.clone()).await.expect_err("nobody answers");
    assert!(failed.will_pass(), "{failed}");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
}
