use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::PaymentRefunded;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, captured, payment_event, reason, stock_reserved};
use tonic::Code;
use uuid::Uuid;

use super::Fixture;

impl Fixture {
    pub(super) async fn order(&self, order_id: Uuid) -> Order {
        let ask = GetOrderRequest { order_id: order_id.to_string() };
        let response = self.client.clone().get_order(self.kit.customer(CUSTOMER, ask)).await.expect("theirs");
        response.into_inner().order.expect("a success has the order")
    }

    /// One minor unit of it.
    pub(super) async fn refund_one(&self, order_id: Uuid) {
        let amount = Some(Money::new("EUR", 1));
        let refunded = Payment::PaymentRefunded(PaymentRefunded { amount, ..Default::default() });
        self.kit.deliver(payment_event(order_id, refunded)).await;
    }

    pub(super) async fn state(&self, order_id: Uuid) -> OrderState {
        self.order(order_id).await.state()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn people_see_their_own_orders_and_operators_see_anybodys(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let ask = || GetOrderRequest { order_id: order.to_string() };
    let stranger =
        fixture.client.clone().get_order(fixture.kit.customer(Uuid::now_v7(), ask())).await.expect_err("not theirs");
    assert_eq!((stranger.code(), reason(&stranger)), (Code::NotFound, "ORDER_NOT_FOUND@souk.order".into()));
    let anonymous = fixture.client.clone().get_order(ask()).await.expect_err("no token");
    assert_eq!((anonymous.code(), reason(&anonymous)), (Code::Unauthenticated, "TOKEN_MISSING@souk.order".into()));
    fixture.client.clone().get_order(fixture.kit.operator(ask())).await.expect("an operator may");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn orders_are_listed_newest_first_page_by_page(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let placed = [fixture.place().await, fixture.place().await, fixture.place().await];
    let page = async |page_token: String| {
        let ask = ListOrdersRequest { page_size: 2, page_token };
        let page =
            fixture.client.clone().list_orders(fixture.kit.customer(CUSTOMER, ask)).await.expect("theirs").into_inner();
        let ids: Vec<_> = page.orders.iter().map(|order| Uuid::parse_str(&order.order_id).expect("a UUID")).collect();
        assert!(page.orders.iter().all(|order| order.items.len() == 1), "each with its lines");
        (ids, page.next_page_token)
    };
    let (first, next) = page(String::new()).await;
    assert_eq!(first, [placed[2], placed[1]]);
    assert_eq!(page(next).await, (vec![placed[0]], String::new()));
    let other = ListOrdersRequest::default();
    let other = fixture.client.clone().list_orders(fixture.kit.customer(Uuid::now_v7(), other)).await.expect("empty");
    assert_eq!(other.into_inner().orders, []);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_page_ends_early_when_its_orders_have_many_lines(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let goods: Vec<_> = (0..100).map(|at| fixture.catalogue.add(&format!("SKU-{at}"), Money::new("EUR", 1))).collect();
    let items: Vec<_> = goods.into_iter().map(|product_id| OrderItem { product_id, quantity: 1 }).collect();
    let mut placed = Vec::new();
    for at in 0..22 {
        // A page is full in the middle of an order, and what would fit behind it still comes after it.
        let items = items[..if at == 0 || at == 21 { 1 } else { 100 }].to_vec();
        let order = CreateOrderRequest { items, ..fixture.wanted(&format!("k{at}")) };
        placed.insert(0, fixture.create(order).await.expect("placed").order_id);
    }
    let (mut listed, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let ask = ListOrdersRequest { page_size: 200, page_token };
        let page = fixture.client.clone().list_orders(fixture.kit.customer(CUSTOMER, ask)).await.expect("theirs");
        let page = page.into_inner();
        sizes.push(page.orders.len());
        let counts: Vec<_> = page.orders.iter().map(|order| order.items.len()).collect();
        assert!(counts.iter().all(|lines| [1, 100].contains(lines)), "each with all its lines: {counts:?}");
        listed.extend(page.orders.into_iter().map(|order| order.order_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, sizes), (placed, vec![20, 2]));
}

/// However many refunds an order has, one response has a bound.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_events_of_an_order_are_listed_page_by_page(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    for record in [stock_reserved(order), authorized(order), captured(order, 2_500)] {
        fixture.kit.deliver(record).await;
    }
    let page = async |page_size: i32, page_token: String| {
        let ask = ListOrderEventsRequest { order_id: order.to_string(), page_size, page_token };
        let page = fixture.client.clone().list_order_events(fixture.kit.customer(CUSTOMER, ask)).await.expect("theirs");
        let ListOrderEventsResponse { events, next_page_token } = page.into_inner();
        (events.into_iter().map(|event| event.version).collect::<Vec<_>>(), next_page_token)
    };
    for _ in 5..=50 {
        fixture.refund_one(order).await;
    }
    assert_eq!(page(0, String::new()).await, ((1..=50).collect(), String::new()), "a full page, and nothing behind it");
    fixture.refund_one(order).await;
    let (versions, next) = page(0, String::new()).await;
    assert_eq!((versions, next.is_empty()), ((1..=50).collect(), false));
    assert_eq!(page(0, next.clone()).await, (vec![51], String::new()));
    let (versions, next_of_one) = page(1, next.clone()).await;
    assert_eq!((versions, next_of_one.is_empty()), (vec![51], true));
    let (versions, later) = page(20, String::new()).await;
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
    assert_eq!(page(20, later).await.0, (21..=40).collect::<Vec<_>>());

    let other = ListOrderEventsRequest { order_id: fixture.place().await.to_string(), page_size: 0, page_token: next };
    let other = fixture.client.clone().list_order_events(fixture.kit.customer(CUSTOMER, other)).await;
    assert_eq!(reason(&other.expect_err("of another order")), "PAGE_TOKEN_INVALID@souk.order");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn states_are_for_those_who_hold_something_for_an_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let ask = || BatchGetOrderStatesRequest { order_ids: vec![Uuid::now_v7().to_string(), order.to_string()] };
    for holder in ["inventory", "payment"] {
        let mut client = OrderServiceClient::new(fixture.kit.connect(holder).await);
        let states = client.batch_get_order_states(ask()).await.expect("it may");
        let states = states.into_inner().orders;
        assert_eq!((states.len(), states[0].state()), (1, OrderState::Pending));
    }
    for other in ["product", "edge", "dev"] {
        let mut client = OrderServiceClient::new(fixture.kit.connect(other).await);
        let refused = client.batch_get_order_states(ask()).await.expect_err("it may not");
        assert_eq!(refused.code(), Code::PermissionDenied, "{other}");
    }
}
