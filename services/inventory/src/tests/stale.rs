use std::time::Duration;

use chassis::Did;
use chassis::rpc::client;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::order_service_server::{OrderService, OrderServiceServer};
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Store, cancelled, confirmed, placed};
use crate::stale::settle_stale;

/// An order service in which every order stands alike.
struct AllAlike(OrderState, i64);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OrderService for AllAlike {
    async fn batch_get_order_states(
        &self,
        request: Request<BatchGetOrderStatesRequest>,
    ) -> Answer<BatchGetOrderStatesResponse> {
        let (state, version) = (self.0.into(), self.1);
        let orders = request.into_inner().order_ids.into_iter();
        let orders = orders.map(|order_id| OrderStatus { order_id, state, version }).collect();
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

async fn serve_orders(state: OrderState, version: i64) -> OrderServiceClient<client::Peer> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        Server::builder().add_service(OrderServiceServer::new(AllAlike(state, version))).serve_with_incoming(incoming),
    );
    let channel = client::connect("order", &format!("http://{address}")).expect("a URL");
    OrderServiceClient::new(channel)
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_old_hold_is_settled_by_what_became_of_its_order(db: PgPool) {
    let store = Store::open_with(db, serve_orders(OrderState::Cancelled, 4).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(placed(order, &[("MUG", 4)])).await;

    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Nothing, "it is not old");
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
    assert_eq!(store.level("MUG").await, (10, 0, 0));
    assert_eq!(store.published(order).await, ["StockReserved", "StockReleased"]);

    // Its events come after all. They tell what the answer was ahead of, and neither change anything nor park the order.
    store.hear(confirmed(order)).await;
    store.hear(cancelled(order)).await;
    assert_eq!((store.level("MUG").await, store.parked().await), ((10, 0, 0), 0));
    assert_eq!(store.published(order).await, ["StockReserved", "StockReleased"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_goes_on_keeps_its_hold_and_is_asked_about_later(db: PgPool) {
    let store = Store::open_with(db, serve_orders(OrderState::Reserved, 2).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(placed(order, &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Nothing, "it was just asked");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmed_order_sells_its_old_hold(db: PgPool) {
    let store = Store::open_with(db, serve_orders(OrderState::Confirmed, 3).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(placed(order, &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    settle_stale(store.service.clone()).await.expect("asked");
    assert_eq!(store.level("MUG").await, (6, 0, 4));
    store.hear(confirmed(order)).await;
    store.hear(cancelled(order)).await;
    assert_eq!(store.level("MUG").await, (10, 0, 0), "what comes later is heard");
    assert_eq!(store.published(order).await, ["StockReserved", "StockSold", "StockReturned"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_orders_cannot_be_asked_a_hold_stays(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    store.hear(placed(Uuid::now_v7(), &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    let failed = settle_stale(store.service.clone()).await.expect_err("nobody answers");
    assert!(failed.will_pass(), "{failed}");
    settle_stale(store.service.clone()).await.expect_err("it is asked about until somebody answers");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
}
