mod days;
mod export;
mod figures;
mod lag;
mod rebuild;
mod retired;

use std::sync::Arc;
use std::time::Duration;

use chassis::event::{Record, TopicSlot};
use contracts::event::Event as _;
use contracts::souk::analytics::v1::analytics_service_client::AnalyticsServiceClient;
use contracts::souk::analytics::v1::*;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, Kit};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::rebuild::Rebuild;
use crate::service::{Service, pool_of_reports, role};

pub(super) const MUG: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00a1);
pub(super) const CUP: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00a2);

/// The analytics service of a shop in Berlin, and a client of it.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) topic: TopicSlot,
    pub(super) client: AnalyticsServiceClient<Channel>,
}

impl Fixture {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_in("Europe/Berlin", db).await
    }

    pub(super) async fn open_in(time_zone: &str, db: PgPool) -> Self {
        let mut kit = Kit::new();
        let (clock, time_zone) = (kit.context.clock.clone(), time_zone.parse().expect("a time zone"));
        let topic = TopicSlot::default();
        let (streams, lag) = (kit.context.streams.clone(), Arc::default());
        let rebuild = Arc::new(Rebuild::new(&topic, Uuid::now_v7()));
        let reports = pool_of_reports(&db, 2);
        let service = Arc::new(Service { db, reports, clock, time_zone, streams, lag, rebuild });
        let client = AnalyticsServiceClient::new(kit.serve(role(&service, &topic, &kit.context)).await);
        Self { kit, service, topic, client }
    }

    pub(super) async fn try_sales(&self, request: GetSalesSummaryRequest) -> Result<GetSalesSummaryResponse, Status> {
        Ok(self.client.clone().get_sales_summary(self.kit.operator(request)).await?.into_inner())
    }

    pub(super) async fn sales(&self, first: &str, last: &str, granularity: Granularity) -> GetSalesSummaryResponse {
        let (start_date, end_date) = (first.to_owned(), last.to_owned());
        let granularity = granularity.into();
        let request = GetSalesSummaryRequest { start_date, end_date, granularity, ..Default::default() };
        self.try_sales(request).await.expect("these days can be read")
    }

    pub(super) async fn top(&self, request: ListTopProductsRequest) -> Result<Vec<TopProduct>, Status> {
        Ok(self.client.clone().list_top_products(self.kit.operator(request)).await?.into_inner().products)
    }

    pub(super) async fn funnel(&self, first: &str, last: &str) -> GetCheckoutFunnelResponse {
        let request = GetCheckoutFunnelRequest { start_date: first.to_owned(), end_date: last.to_owned() };
        let response = self.client.clone().get_checkout_funnel(self.kit.operator(request)).await;
        response.expect("these days can be read").into_inner()
    }

    pub(super) async fn status(&self) -> GetProjectionStatusResponse {
        let request = self.kit.operator(GetProjectionStatusRequest {});
        self.client.clone().get_projection_status(request).await.expect("it can be read").into_inner()
    }
}

pub(super) fn at(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).expect("a time")
}

/// The events of one order, whose time goes on from event to event.
pub(super) struct Story {
    pub(super) order_id: Uuid,
    currency: &'static str,
    lines: Vec<OrderLine>,
    now: OffsetDateTime,
    pub(super) records: Vec<Record>,
}

impl Story {
    /// An order that is placed at this time. Lines: a product, how many units, and the minor units of the price.
    pub(super) fn placed(order: u128, when: &str, currency: &'static str, lines: &[(Uuid, i32, i64)]) -> Self {
        let lines = lines.iter().map(|(product, quantity, minor)| OrderLine {
            product_id: product.to_string(),
            quantity: *quantity,
            sku: if *product == MUG { "MUG" } else { "CUP" }.to_owned(),
            title: if *product == MUG { "Mug" } else { "Cup" }.to_owned(),
            unit_price: Some(Money::new(currency, *minor)),
            ..Default::default()
        });
        let (order_id, lines, now) = (Uuid::from_u128(order), lines.collect::<Vec<_>>(), at(when));
        let story = Self { order_id, currency, lines: lines.clone(), now, records: vec![] };
        story.then(0, Event::OrderPlaced(OrderPlaced { lines, ..Default::default() }))
    }

    fn total(&self) -> Money {
        let prices =
            self.lines.iter().map(|line| i64::from(line.quantity) * line.unit_price.as_ref().map_or(0, |it| it.minor));
        Money::new(self.currency, prices.sum())
    }

    /// What happened so many milliseconds later.
    pub(super) fn then(mut self, milliseconds: u64, event: Event) -> Self {
        self.now += Duration::from_millis(milliseconds);
        let (event_type, version) = (event.event_type(), self.records.len() as i64 + 1);
        let (order_id, user_id) = (self.order_id.to_string(), CUSTOMER.to_string());
        let payload = OrderEvent { order_id, user_id, total: Some(self.total()), event: Some(event) }.encode_to_vec();
        let mut record = testkit::record(event_type, self.order_id, version, payload);
        record.occurred_at = self.now;
        record.partition = (self.order_id.as_u128() % 12) as i32;
        self.records.push(record);
        self
    }

    /// It is reserved, and so many milliseconds after it was placed it is confirmed.
    pub(super) fn confirmed(self, milliseconds: u64) -> Self {
        let lines = self.lines.clone();
        self.then(0, Event::OrderReserved(OrderReserved::default()))
            .then(milliseconds, Event::OrderConfirmed(OrderConfirmed { lines, ..Default::default() }))
    }

    /// It is confirmed after 100 ms, and paid 50 ms later.
    pub(super) fn paid(self) -> Self {
        self.confirmed(100).then(50, Event::OrderPaid(OrderPaid::default()))
    }

    pub(super) fn refunded(self, milliseconds: u64, minor: i64) -> Self {
        let amount = Some(Money::new(self.currency, minor));
        self.then(milliseconds, Event::OrderRefunded(OrderRefunded { amount, ..Default::default() }))
    }
}

/// A currency, orders, and minor units: gross, refunded and net.
pub(super) fn figures(sales: &Sales) -> (&str, i64, i64, i64, i64) {
    let money = |it: &Option<Money>| it.as_ref().map_or(0, |it| it.minor);
    let currency = sales.gross.as_ref().map_or("", |it| &it.currency);
    (currency, sales.paid_orders, money(&sales.gross), money(&sales.refunded), money(&sales.net))
}
