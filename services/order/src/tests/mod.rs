mod away;
mod cancel;
mod create;
mod flow;
mod impatient;
mod keys;
mod read;
mod rebuild;
mod storm;
mod story;
mod stuck;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chassis::Unexpected;
use chassis::check::Range;
use chassis::event::outbox::Wake;
use chassis::event::{Consumer, Record};
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::payment::v1::*;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::product_service_server::{ProductService, ProductServiceServer};
use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::{Connection, PgConnection, PgPool};
use testkit::Kit;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::expire::expire_due;
use crate::service::Service;
use crate::{Difference, consumer, role};

/// All orders built again: how many there are, and which differ.
pub(super) async fn compare(db: &PgPool) -> Result<(u64, Vec<Difference>), Unexpected> {
    let mut differences = Vec::new();
    let count = crate::rebuild::compare(db, Range::ALL, |difference| differences.push(difference)).await?;
    Ok((count, differences))
}

/// The order service over a real catalogue of a few products, a client of it, and the consumer that the bus would feed.
pub(super) struct Shop {
    pub(super) kit: Kit,
    pub(super) db: PgPool,
    pub(super) service: Arc<Service>,
    pub(super) consumer: Consumer,
    pub(super) client: OrderServiceClient<Channel>,
    pub(super) catalogue: Catalogue,
    pub(super) user: Uuid,
    last_version: Mutex<i64>,
}

/// A product service whose products the test decides about, and whether it can be asked.
#[derive(Clone, Default)]
pub(super) struct Catalogue(Arc<Mutex<Shelves>>);

#[derive(Default)]
struct Shelves {
    quotes: Vec<ItemQuote>,
    /// A product that it never quotes, however long one waits.
    stalled: Option<String>,
    /// How many more calls it turns away.
    refusals: u32,
    asked: u32,
}

impl Catalogue {
    pub(super) fn add(&self, sku: &str, price: Money) -> String {
        let product_id = Uuid::now_v7().to_string();
        let quote = ItemQuote {
            product_id: product_id.clone(),
            state: ProductState::Active.into(),
            sku: sku.into(),
            title: format!("The {sku}"),
            unit_price: Some(price),
        };
        self.shelves().quotes.push(quote);
        product_id
    }

    pub(super) fn price_all(&self, price: Money) {
        for quote in &mut self.shelves().quotes {
            quote.unit_price = Some(price.clone());
        }
    }

    pub(super) fn archive_all(&self) {
        for quote in &mut self.shelves().quotes {
            quote.set_state(ProductState::Archived);
        }
    }

    pub(super) fn stall(&self, product_id: &str) {
        self.shelves().stalled = Some(product_id.to_owned());
    }

    pub(super) fn close(&self) {
        self.turn_away(u32::MAX);
    }

    pub(super) fn turn_away(&self, calls: u32) {
        self.shelves().refusals = calls;
    }

    pub(super) fn reopen(&self) {
        self.turn_away(0);
    }

    /// How often it was asked, open or closed.
    pub(super) fn asked(&self) -> u32 {
        self.shelves().asked
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().expect("no panics")
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ProductService for Catalogue {
    async fn quote_items(&self, request: Request<QuoteItemsRequest>) -> Answer<QuoteItemsResponse> {
        assert_eq!(request.metadata().get(chassis::rpc::SERVICE_HEADER).map(|it| it.as_bytes()), Some(&b"order"[..]));
        let stalled = self.shelves().stalled.clone();
        if stalled.is_some_and(|stalled| request.get_ref().product_ids.contains(&stalled)) {
            return std::future::pending().await;
        }
        let mut shelves = self.shelves();
        shelves.asked += 1;
        if shelves.refusals > 0 {
            shelves.refusals -= 1;
            return Err(Status::unavailable("closed"));
        }
        let quotes = request.into_inner().product_ids.into_iter().map(|product_id| {
            let found = shelves.quotes.iter().find(|quote| quote.product_id == product_id).cloned();
            found.unwrap_or(ItemQuote { product_id, ..Default::default() })
        });
        Ok(Response::new(QuoteItemsResponse { quotes: quotes.collect() }))
    }

    async fn create_product(&self, _: Request<CreateProductRequest>) -> Answer<CreateProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn update_product(&self, _: Request<UpdateProductRequest>) -> Answer<UpdateProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn archive_product(&self, _: Request<ArchiveProductRequest>) -> Answer<ArchiveProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_product(&self, _: Request<GetProductRequest>) -> Answer<GetProductResponse> {
        Err(Status::unimplemented(""))
    }

    async fn batch_get_products(&self, _: Request<BatchGetProductsRequest>) -> Answer<BatchGetProductsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_products(&self, _: Request<ListProductsRequest>) -> Answer<ListProductsResponse> {
        Err(Status::unimplemented(""))
    }
}

impl Shop {
    pub(super) async fn open(db: PgPool) -> Self {
        let catalogue = Catalogue::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let products = ProductServiceServer::new(catalogue.clone());
        tokio::spawn(Server::builder().add_service(products).serve_with_incoming(incoming));
        let channel = chassis::rpc::client::connect("product", &format!("http://{address}")).expect("a URL");

        let kit = Kit::new();
        let service = Arc::new(Service {
            db: db.clone(),
            clock: kit.context.clock.clone(),
            products: ProductServiceClient::new(channel),
            payment_deadline: Duration::from_secs(900),
            published: Wake::default(),
        });
        let channel = kit.serve(role(service.clone(), ([127, 0, 0, 1], 0).into(), &kit.context)).await;
        let (consumer, client) = (consumer(service.clone()), OrderServiceClient::new(channel));
        Self { kit, db, service, consumer, client, catalogue, user: Uuid::now_v7(), last_version: Mutex::new(0) }
    }

    /// One mug for 12.50 EUR, as the customer of this shop.
    pub(super) fn wanted(&self, key: &str) -> CreateOrderRequest {
        let product_id = self.catalogue.add("MUG", Money::new("EUR", 1_250));
        CreateOrderRequest {
            request_id: key.into(),
            items: vec![OrderItem { product_id, quantity: 2 }],
            payment_method: "pm_card_visa".into(),
            ..Default::default()
        }
    }

    pub(super) async fn create(&self, request: CreateOrderRequest) -> Result<Order, Status> {
        let response = self.client.clone().create_order(self.kit.customer(self.user, request)).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }

    pub(super) async fn place(&self) -> Uuid {
        let key = Uuid::now_v7().to_string();
        let order = self.create(self.wanted(&key)).await.expect("placed");
        Uuid::parse_str(&order.order_id).expect("a UUID")
    }

    pub(super) async fn order(&self, order_id: Uuid) -> Order {
        let ask = GetOrderRequest { order_id: order_id.to_string() };
        let response = self.client.clone().get_order(self.kit.customer(self.user, ask)).await.expect("theirs");
        response.into_inner().order.expect("a success has the order")
    }

    pub(super) async fn state(&self, order_id: Uuid) -> OrderState {
        self.order(order_id).await.state()
    }

    pub(super) async fn cancel(&self, order_id: Uuid, key: &str) -> Result<Order, Status> {
        let reason = CancelReason::CustomerRequest.into();
        let ask = CancelOrderRequest { request_id: key.into(), order_id: order_id.to_string(), reason };
        let response = self.client.clone().cancel_order(self.kit.customer(self.user, ask)).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }

    pub(super) async fn fulfill(&self, order_id: Uuid, key: &str) -> Result<Order, Status> {
        let request = FulfillOrderRequest {
            request_id: key.into(),
            order_id: order_id.to_string(),
            carrier: "Royal Mail".into(),
            tracking_number: "RM-1".into(),
        };
        let response = self.client.clone().fulfill_order(self.kit.operator(request)).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }

    /// Delivered twice, as Kafka may.
    pub(super) async fn consume(&self, record: Record) {
        testkit::hear(&self.consumer, &self.kit.context.clock, std::slice::from_ref(&record)).await;
        testkit::hear(&self.consumer, &self.kit.context.clock, &[record]).await;
    }

    pub(super) fn next_version(&self) -> i64 {
        let mut last = self.last_version.lock().expect("no panics");
        *last += 1;
        *last
    }

    pub(super) fn stock(&self, order_id: Uuid, event: Stock) -> Record {
        let name = match &event {
            Stock::StockReserved(_) => "souk.inventory.v1.StockReserved",
            Stock::StockRejected(_) => "souk.inventory.v1.StockRejected",
            Stock::StockSold(_) => "souk.inventory.v1.StockSold",
            Stock::StockReleased(_) => "souk.inventory.v1.StockReleased",
            Stock::StockReturned(_) => "souk.inventory.v1.StockReturned",
        };
        let event = InventoryEvent { order_id: order_id.to_string(), event: Some(event) };
        testkit::record(name, order_id, self.next_version(), event.encode_to_vec())
    }

    pub(super) fn payment(&self, order_id: Uuid, event: Payment) -> Record {
        let payment_id = Uuid::from_u128(order_id.as_u128() ^ 0xff);
        let name = match &event {
            Payment::PaymentAuthorized(_) => "souk.payment.v1.PaymentAuthorized",
            Payment::PaymentDeclined(_) => "souk.payment.v1.PaymentDeclined",
            Payment::PaymentCaptured(_) => "souk.payment.v1.PaymentCaptured",
            Payment::PaymentCaptureFailed(_) => "souk.payment.v1.PaymentCaptureFailed",
            Payment::PaymentVoided(_) => "souk.payment.v1.PaymentVoided",
            Payment::PaymentRefunded(_) => "souk.payment.v1.PaymentRefunded",
            Payment::PaymentRefundFailed(_) => "souk.payment.v1.PaymentRefundFailed",
        };
        let payload =
            PaymentEvent { payment_id: payment_id.to_string(), order_id: order_id.to_string(), event: Some(event) };
        testkit::record(name, payment_id, self.next_version(), payload.encode_to_vec())
    }

    pub(super) fn stock_reserved(&self, order_id: Uuid) -> Record {
        self.stock(order_id, Stock::StockReserved(StockReserved {}))
    }

    pub(super) fn authorized(&self, order_id: Uuid) -> Record {
        self.payment(order_id, Payment::PaymentAuthorized(PaymentAuthorized { amount: Some(Money::new("EUR", 2_500)) }))
    }

    pub(super) fn captured(&self, order_id: Uuid) -> Record {
        self.captured_of(order_id, 2_500)
    }

    pub(super) fn captured_of(&self, order_id: Uuid, minor: i64) -> Record {
        self.payment(order_id, Payment::PaymentCaptured(PaymentCaptured { amount: Some(Money::new("EUR", minor)) }))
    }

    /// One order in each state.
    pub(super) async fn one_of_each(&self) -> Vec<(OrderState, Uuid)> {
        let mut orders = vec![];
        for state in [
            OrderState::Expired,
            OrderState::Pending,
            OrderState::Reserved,
            OrderState::Confirmed,
            OrderState::Fulfilled,
            OrderState::Rejected,
            OrderState::PaymentFailed,
            OrderState::Cancelled,
        ] {
            let order = self.place().await;
            if matches!(
                state,
                OrderState::Reserved | OrderState::Confirmed | OrderState::Fulfilled | OrderState::PaymentFailed
            ) {
                self.consume(self.stock_reserved(order)).await;
            }
            if matches!(state, OrderState::Confirmed | OrderState::Fulfilled) {
                self.consume(self.authorized(order)).await;
            }
            match state {
                OrderState::Expired => {
                    self.kit.context.clock.advance(Duration::from_secs(901));
                    expire_due(self.service.clone()).await.expect("one is due");
                }
                OrderState::Fulfilled => {
                    self.consume(self.captured(order)).await;
                    self.fulfill(order, "fulfilled").await.expect("paid");
                }
                OrderState::Rejected => {
                    self.consume(self.stock(order, Stock::StockRejected(StockRejected::default()))).await
                }
                OrderState::PaymentFailed => self.consume(self.declined(order)).await,
                OrderState::Cancelled => drop(self.cancel(order, "cancelled").await.expect("pending")),
                _ => {}
            }
            assert_eq!(self.state(order).await, state);
            orders.push((state, order));
        }
        orders
    }

    pub(super) fn declined(&self, order_id: Uuid) -> Record {
        self.payment(order_id, Payment::PaymentDeclined(PaymentDeclined { reason: "CARD_DECLINED".into() }))
    }

    /// What was published about an order. Versions have no gaps, and the event store says the same.
    pub(super) async fn published(&self, order_id: Uuid) -> Vec<String> {
        let records: Vec<_> = testkit::published(&self.db).await.into_iter().filter(|it| it.key == order_id).collect();
        for (at, record) in records.iter().enumerate() {
            assert_eq!(record.version, at as i64 + 1);
        }
        let stored =
            sqlx::query_scalar!("select event_id from order_event where order_id = $1 order by version", order_id);
        let stored = stored.fetch_all(&self.db).await.expect("events");
        assert_eq!(stored, records.iter().map(|record| record.event_id).collect::<Vec<_>>());
        records.iter().map(|record| record.event_type.rsplit('.').next().unwrap_or_default().to_owned()).collect()
    }

    /// How many transactions Postgres ended because they waited for each other. Closes the service's connections.
    pub(super) async fn deadlocks(&self) -> i64 {
        // Sessions report when they have been idle for a second, or when they end.
        self.db.close().await;
        let options = self.db.connect_options();
        let mut fresh = PgConnection::connect_with(&options).await.expect("a connection");
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&mut fresh)
            .await
            .expect("statistics")
    }

    pub(super) async fn parked(&self) -> usize {
        chassis::event::dead_letter::list(&self.db, None, 0, 100).await.expect("letters").len()
    }
}
