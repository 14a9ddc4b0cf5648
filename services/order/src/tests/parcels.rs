//! Orders that are sent in parts, and what comes back.

use std::collections::BTreeMap;

use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::PaymentRefunded;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, Dice, authorized, captured, fields, payment_event, reason, stock_reserved, try_key};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::rebuild::compare;
use ReturnDisposition::{Restock, WriteOff};

impl Fixture {
    /// A paid order of these quantities, each of a product of its own that costs 100, 200 and so on.
    async fn paid_of(&self, quantities: &[i32]) -> (Uuid, Vec<String>) {
        let products =
            (1..).zip(quantities).map(|(at, _)| self.catalogue.add(&format!("SKU-{at}"), Money::new("EUR", 100 * at)));
        let products: Vec<_> = products.collect();
        let items = products.iter().zip(quantities);
        let items =
            items.map(|(product_id, quantity)| OrderItem { product_id: product_id.clone(), quantity: *quantity });
        let request_id = Uuid::now_v7().to_string();
        let (items, payment_method) = (items.collect(), "pm_card_visa".to_owned());
        let request = CreateOrderRequest { request_id, items, payment_method, ..Default::default() };
        let order = self.create(request).await.expect("placed");
        let order_id = Uuid::parse_str(&order.order_id).expect("a UUID");
        let total = order.total.expect("a total").minor;
        for record in [stock_reserved(order_id), authorized(order_id), captured(order_id, total)] {
            self.kit.deliver(record).await;
        }
        (order_id, products)
    }

    /// The key is the tracking number, too.
    pub(super) async fn fulfill_items(&self, order: Uuid, key: &str, items: &[(&str, i32)]) -> Result<Order, Status> {
        let response = self.client.clone().fulfill_order(self.kit.operator(parcel(order, key, items))).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }

    async fn take_back(
        &self,
        order: Uuid,
        key: &str,
        items: &[(&str, i32, ReturnDisposition)],
    ) -> Result<ReturnItemsResponse, Status> {
        let request = self.kit.operator(returned(order, key, items));
        Ok(self.client.clone().return_items(request).await?.into_inner())
    }

    /// The payloads of an order's events.
    async fn payloads(&self, order: Uuid) -> Vec<Event> {
        let records = testkit::published(&self.service.db).await.into_iter().filter(|record| record.key == order);
        let event = |payload: Vec<u8>| OrderEvent::decode(&*payload).expect("an event").event.expect("a payload");
        records.map(|record| event(record.payload)).collect()
    }
}

fn parcel(order: Uuid, key: &str, items: &[(&str, i32)]) -> FulfillOrderRequest {
    let item =
        |(product_id, quantity): &(&str, i32)| OrderItem { product_id: (*product_id).into(), quantity: *quantity };
    FulfillOrderRequest {
        request_id: key.into(),
        order_id: order.to_string(),
        carrier: "Royal Mail".into(),
        tracking_number: key.into(),
        items: items.iter().map(item).collect(),
        ..Default::default()
    }
}

fn returned(order: Uuid, key: &str, items: &[(&str, i32, ReturnDisposition)]) -> ReturnItemsRequest {
    let item = |(product_id, quantity, disposition): &(&str, i32, ReturnDisposition)| ReturnItem {
        product_id: (*product_id).into(),
        quantity: *quantity,
        disposition: (*disposition).into(),
    };
    let items = items.iter().map(item).collect();
    ReturnItemsRequest { request_id: key.into(), order_id: order.to_string(), items }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_is_fulfilled_when_all_its_units_are(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[3, 1]).await;
    let first = products[0].as_str();
    let partly = fixture.fulfill_items(order, "f1", &[(first, 2)]).await.expect("a part");
    assert_eq!((partly.state(), partly.items[0].fulfilled_quantity), (OrderState::Confirmed, 2));
    assert_eq!(fixture.order(order).await, partly, "what is read is what the response had");
    let refused = fixture.cancel(order, "c1").await.expect_err("the customer may have it already");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "ORDER_PARTLY_FULFILLED@souk.order".into())
    );
    let refused = fixture.fulfill_items(order, "f2", &[(first, 2)]).await.expect_err("one is left");
    assert_eq!(reason(&refused), "ITEM_QUANTITY_EXCEEDED@souk.order");

    fixture.fulfill_items(order, "f3", &[(first, 1)]).await.expect("a part");
    let whole = fixture.fulfill(order, "f4").await.expect("what is left");
    assert_eq!(whole.state(), OrderState::Fulfilled);
    let parcels = whole.shipments.iter().map(|it| (it.number, it.tracking_number.as_str(), it.items.clone()));
    let item = |at: usize, quantity| ShippedItem {
        product_id: products[at].clone(),
        sku: format!("SKU-{}", at + 1),
        quantity,
    };
    assert_eq!(
        parcels.collect::<Vec<_>>(),
        [(1, "f1", vec![item(0, 2)]), (2, "f3", vec![item(0, 1)]), (3, "RM-1", vec![item(1, 1)])]
    );
    assert_eq!(whole.shipment, whole.shipments.last().cloned());
    let story = fixture.published(order).await;
    assert_eq!(story[4..], ["OrderPartlyFulfilled", "OrderPartlyFulfilled", "OrderFulfilled"]);
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (1, vec![]));
}

/// Who waits for the lock of an order must see, once it has it, what was done meanwhile to lines and shipments, too.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn parts_that_are_sent_at_once_are_all_sent(db: PgPool) {
    const AT_ONCE: i64 = 2;
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[2]).await;
    let mut held = fixture.service.db.begin().await.expect("a transaction");
    sqlx::query(r#"select from "order" where order_id = $1 for update"#)
        .bind(order)
        .fetch_one(&mut *held)
        .await
        .expect("locked");
    let fulfil = async |key: &str| fixture.fulfill_items(order, key, &[(&products[0], 1)]).await.expect("a part");
    let release = async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&fixture.service.db).await.expect("a count") < AT_ONCE {
            tokio::task::yield_now().await;
        }
        held.rollback().await.expect("released");
    };
    tokio::join!(fulfil("f1"), fulfil("f2"), release);
    let whole = fixture.order(order).await;
    assert_eq!(whole.shipments.iter().map(|it| it.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((whole.state(), whole.items[0].fulfilled_quantity), (OrderState::Fulfilled, 2));
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (1, vec![]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn fulfilled_units_come_back_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[3, 1]).await;
    let (first, second) = (products[0].as_str(), products[1].as_str());
    let early = fixture.take_back(order, "r0", &[(first, 1, Restock)]).await.expect_err("nothing was sent");
    assert_eq!(reason(&early), "ITEM_QUANTITY_EXCEEDED@souk.order");
    fixture.fulfill_items(order, "f1", &[(first, 2)]).await.expect("a part");
    let back = fixture.take_back(order, "r1", &[(first, 1, Restock), (first, 1, WriteOff)]).await.expect("both");
    assert_eq!(back.refund, Some(Money::new("EUR", 200)));
    let shown = back.order.expect("the order");
    assert_eq!((shown.state(), shown.items[0].returned_quantity), (OrderState::Confirmed, 2));
    fixture.fulfill(order, "f2").await.expect("the rest");
    fixture.take_back(order, "r2", &[(second, 1, WriteOff)]).await.expect("of a fulfilled order, too");
    for (key, items) in [("r3", vec![(second, 1, Restock)]), ("r4", vec![(first, 1, Restock), (first, 1, WriteOff)])] {
        let refused = fixture.take_back(order, key, &items).await.expect_err("no more than there is");
        assert_eq!(reason(&refused), "ITEM_QUANTITY_EXCEEDED@souk.order", "{key}");
    }
    let story = fixture.published(order).await;
    assert_eq!(story[4..], ["OrderPartlyFulfilled", "OrderItemsReturned", "OrderFulfilled", "OrderItemsReturned"]);
    let events = fixture.payloads(order).await;
    let returns = events.into_iter().filter_map(|event| match event {
        Event::OrderItemsReturned(it) => Some((it.return_number, it.items.len(), it.refund.map(|refund| refund.minor))),
        _ => None,
    });
    assert_eq!(returns.collect::<Vec<_>>(), [(1, 2, Some(200)), (2, 1, Some(200))]);
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (1, vec![]));
}

/// An order whose event has no items, as releases without partial fulfilment recorded it, was fulfilled as a whole.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_an_earlier_release_fulfilled_can_come_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[2]).await;
    let old = OrderFulfilled { carrier: "Royal Mail".into(), tracking_number: "RM-1".into(), ..Default::default() };
    let event = Some(Event::OrderFulfilled(old));
    let payload = OrderEvent { order_id: order.to_string(), event, ..Default::default() };
    sqlx::query(
        "with event as (
           insert into order_event (order_id, version, event_id, type, payload, actor, occurred_at)
           select order_id, version + 1, gen_random_uuid(), 'souk.order.v1.OrderFulfilled', $2, 'test', updated_at
           from \"order\" where order_id = $1
         )
         update \"order\" set state = 'FULFILLED', version = version + 1, carrier = 'Royal Mail', tracking_number = 'RM-1'
         where order_id = $1",
    )
    .bind(order)
    .bind(payload.encode_to_vec())
    .execute(&fixture.service.db)
    .await
    .expect("as the release before wrote it");
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (1, vec![]));
    let shown = fixture.order(order).await;
    assert_eq!((shown.items[0].fulfilled_quantity, shown.shipments.len()), (2, 0));
    assert_eq!(shown.shipment.expect("the only one").tracking_number, "RM-1");
    fixture.take_back(order, "r1", &[(products[0].as_str(), 1, Restock)]).await.expect("it was sent");
    assert_eq!(fixture.order(order).await.items[0].returned_quantity, 1);
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (1, vec![]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn bad_items_are_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[2]).await;
    let (known, unknown) = (products[0].as_str(), Uuid::now_v7().to_string());
    let refused = fixture.fulfill_items(order, "f1", &[(known, 1), (&unknown, 1)]).await.expect_err("one is not in it");
    assert_eq!(
        (reason(&refused), fields(&refused)),
        ("ITEM_NOT_IN_ORDER@souk.order".into(), vec!["items[1].product_id".into()])
    );
    let refused = fixture.fulfill_items(order, "f1", &[(known, 1), (known, 1)]).await.expect_err("twice");
    assert_eq!(fields(&refused), ["items[1].product_id"]);
    let refused = fixture.fulfill_items(order, "f1", &[(known, 0)]).await.expect_err("nothing");
    assert_eq!(fields(&refused), ["items[0].quantity"]);
    let refused = fixture.take_back(order, "r1", &[(&unknown, 1, Restock)]).await.expect_err("not in it");
    assert_eq!(
        (reason(&refused), fields(&refused)),
        ("ITEM_NOT_IN_ORDER@souk.order".into(), vec!["items[0].product_id".into()])
    );
    let twice = [(known, 1, Restock), (known, 1, Restock)];
    assert_eq!(fields(&fixture.take_back(order, "r1", &twice).await.expect_err("twice")), ["items[1].product_id"]);
    assert_eq!(fields(&fixture.take_back(order, "r1", &[]).await.expect_err("nothing")), ["items"]);
    let odd = [(known, 1, ReturnDisposition::Unspecified)];
    assert_eq!(fields(&fixture.take_back(order, "r1", &odd).await.expect_err("what for")), ["items[0].disposition"]);
    let pending = fixture.place().await;
    let refused = fixture.take_back(pending, "r1", &[(known, 1, Restock)]).await.expect_err("not even paid");
    assert_eq!(reason(&refused), "ORDER_NOT_RETURNABLE@souk.order");
    let theirs = fixture.kit.customer(CUSTOMER, returned(order, "r1", &[(known, 1, Restock)]));
    let refused = fixture.client.clone().return_items(theirs).await.expect_err("operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_has_a_bounded_number_of_parts(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[102]).await;
    let item = products[0].as_str();
    for at in 0..99 {
        fixture.fulfill_items(order, &format!("f{at}"), &[(item, 1)]).await.expect("a part");
        fixture.take_back(order, &format!("r{at}"), &[(item, 1, Restock)]).await.expect("a part");
    }
    let refused = fixture.fulfill_items(order, "f99", &[(item, 1)]).await.expect_err("the rest could not be sent");
    assert_eq!(reason(&refused), "ORDER_PARTS_EXHAUSTED@souk.order");
    fixture.fulfill(order, "f99").await.expect("the rest");
    fixture.take_back(order, "r99", &[(item, 1, Restock)]).await.expect("a part");
    let refused = fixture.take_back(order, "r100", &[(item, 1, Restock)]).await.expect_err("too many");
    assert_eq!(reason(&refused), "ORDER_PARTS_EXHAUSTED@souk.order");
    let shown = fixture.order(order).await;
    assert_eq!((shown.state(), shown.shipments.len()), (OrderState::Fulfilled, 100));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nothing_of_an_order_that_is_refunded_is_sent(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, _) = fixture.paid_of(&[2]).await;
    let half = PaymentRefunded { amount: Some(Money::new("EUR", 100)), ..Default::default() };
    fixture.kit.deliver(payment_event(order, Payment::PaymentRefunded(half.clone()))).await;
    let to_pick = async || fixture.pick_list(0, "").await.expect("a page").orders.len();
    assert_eq!(to_pick().await, 1);
    fixture.kit.deliver(payment_event(order, Payment::PaymentRefunded(half))).await;
    assert_eq!(to_pick().await, 0);
    let refused = fixture.fulfill(order, "f1").await.expect_err("nobody pays for it");
    assert_eq!(reason(&refused), "ORDER_REFUNDED@souk.order");
    fixture.cancel(order, "c1").await.expect("this ends it");
}

/// Else it could not end any more: what was sent cannot be cancelled.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_of_which_a_part_was_sent_ends_although_it_is_refunded(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, products) = fixture.paid_of(&[2]).await;
    fixture.fulfill_items(order, "f1", &[(&products[0], 1)]).await.expect("a part");
    let all = PaymentRefunded { amount: Some(Money::new("EUR", 200)), ..Default::default() };
    fixture.kit.deliver(payment_event(order, Payment::PaymentRefunded(all))).await;
    let refused = fixture.cancel(order, "c1").await.expect_err("a part was sent");
    assert_eq!(reason(&refused), "ORDER_PARTLY_FULFILLED@souk.order");
    let ended = fixture.fulfill(order, "f2").await.expect("the rest");
    assert_eq!(ended.state(), OrderState::Fulfilled);
    let back = fixture.take_back(order, "r1", &[(&products[0], 2, Restock)]).await.expect("it was sent");
    assert_eq!(back.order.expect("the order").items[0].returned_quantity, 2);
}

/// What should be true of an order, beside what is.
struct Model {
    order: Uuid,
    /// The product, and how many units were ordered, sent and taken back.
    lines: Vec<(String, i32, i32, i32)>,
    refunded: i64,
    is_cancelled: bool,
}

impl Model {
    fn is_sent(&self) -> bool {
        self.lines.iter().any(|line| line.2 > 0)
    }

    fn is_fulfilled(&self) -> bool {
        self.lines.iter().all(|line| line.1 == line.2)
    }

    fn total(&self) -> i64 {
        (1..).zip(&self.lines).map(|(at, line)| 100 * at * i64::from(line.1)).sum()
    }

    /// Some products and units of them, of which there may be too few.
    fn choose(&self, dice: &mut Dice) -> Vec<(usize, i32)> {
        let chosen = (0..self.lines.len()).filter_map(|at| {
            let quantity = i32::try_from(dice.below(3)).expect("it is small");
            (quantity > 0).then_some((at, quantity))
        });
        chosen.collect()
    }

    async fn fulfill(&mut self, fixture: &Fixture, dice: &mut Dice, key: &str) {
        let chosen = self.choose(dice);
        let items: Vec<_> = chosen.iter().map(|(at, quantity)| (self.lines[*at].0.as_str(), *quantity)).collect();
        let (request, other) = (parcel(self.order, key, &items), parcel(self.order, key, &[(&self.lines[0].0, 999)]));
        let fits = chosen.iter().all(|(at, quantity)| self.lines[*at].2 + quantity <= self.lines[*at].1);
        if self.is_cancelled || self.is_fulfilled() || self.refunded == self.total() && !self.is_sent() || !fits {
            fixture.client.clone().fulfill_order(fixture.kit.operator(request)).await.expect_err("illegal");
            return;
        }
        try_key(&fixture.service.db, request, other, |request| {
            let (mut client, request) = (fixture.client.clone(), fixture.kit.operator(request));
            async move { Ok(client.fulfill_order(request).await?.into_inner()) }
        })
        .await;
        // No items are all that are left.
        for line in self.lines.iter_mut().filter(|_| chosen.is_empty()) {
            line.2 = line.1;
        }
        for (at, quantity) in chosen {
            self.lines[at].2 += quantity;
        }
    }

    async fn take_back(&mut self, fixture: &Fixture, dice: &mut Dice, key: &str) {
        let chosen = self.choose(dice);
        let dispositions = [Restock, WriteOff];
        let items: Vec<_> = chosen
            .iter()
            .map(|(at, quantity)| {
                (self.lines[*at].0.as_str(), *quantity, dispositions[usize::from(dice.below(2) == 0)])
            })
            .collect();
        let (request, other) =
            (returned(self.order, key, &items), returned(self.order, key, &[(&self.lines[0].0, 999, Restock)]));
        let fits = chosen.iter().all(|(at, quantity)| self.lines[*at].3 + quantity <= self.lines[*at].2);
        if chosen.is_empty() || self.is_cancelled || !fits {
            fixture.client.clone().return_items(fixture.kit.operator(request)).await.expect_err("illegal");
            return;
        }
        try_key(&fixture.service.db, request, other, |request| {
            let (mut client, request) = (fixture.client.clone(), fixture.kit.operator(request));
            async move { Ok(client.return_items(request).await?.into_inner()) }
        })
        .await;
        for (at, quantity) in chosen {
            self.lines[at].3 += quantity;
        }
    }

    async fn refund(&mut self, fixture: &Fixture, dice: &mut Dice) {
        let left = self.total() - self.refunded;
        let minor = i64::try_from(dice.below(300)).expect("it is small") + 1;
        let minor = if dice.below(4) == 0 { left } else { minor };
        if (1..=left).contains(&minor) {
            let amount = Some(Money::new("EUR", minor));
            let refunded = PaymentRefunded { amount, ..Default::default() };
            fixture.kit.deliver(payment_event(self.order, Payment::PaymentRefunded(refunded))).await;
            self.refunded += minor;
        }
    }

    async fn assert(&self, fixture: &Fixture, what: &str) {
        let shown = fixture.order(self.order).await;
        let state = match (self.is_cancelled, self.is_fulfilled()) {
            (true, _) => OrderState::Cancelled,
            (false, true) => OrderState::Fulfilled,
            (false, false) => OrderState::Confirmed,
        };
        let lines = shown.items.iter();
        let lines = lines.map(|it| (it.product_id.clone(), it.quantity, it.fulfilled_quantity, it.returned_quantity));
        assert_eq!((shown.state(), lines.collect::<Vec<_>>()), (state, self.lines.clone()), "{what}");
        assert_eq!(shown.payment.as_ref().expect("a payment").refunded_minor, self.refunded, "{what}");
        let (mut sent, mut back, mut price) = (BTreeMap::new(), BTreeMap::new(), 0);
        for event in fixture.payloads(self.order).await {
            match event {
                Event::OrderPartlyFulfilled(OrderPartlyFulfilled { items, .. })
                | Event::OrderFulfilled(OrderFulfilled { items, .. }) => {
                    items.into_iter().for_each(|it| *sent.entry(it.product_id).or_insert(0) += it.quantity);
                }
                Event::OrderItemsReturned(it) => {
                    price += it.refund.expect("a price").minor;
                    it.items.into_iter().for_each(|it| *back.entry(it.product_id).or_insert(0) += it.quantity);
                }
                _ => {}
            }
        }
        let of = |all: &BTreeMap<String, i32>, product: &String| all.get(product).copied().unwrap_or_default();
        let told: Vec<_> = self.lines.iter().map(|line| (of(&sent, &line.0), of(&back, &line.0))).collect();
        assert_eq!(told, self.lines.iter().map(|line| (line.2, line.3)).collect::<Vec<_>>(), "{what}: its events");
        let returned: i64 = (1..).zip(&self.lines).map(|(at, line)| 100 * at * i64::from(line.3)).sum();
        assert_eq!(price, returned, "{what}: the price of what came back");
        let parcels = shown.shipments.iter().flat_map(|it| &it.items).map(|it| it.quantity).sum::<i32>();
        assert_eq!(parcels, self.lines.iter().map(|line| line.2).sum::<i32>(), "{what}: its shipments");
        let (_, differences) = compare(&fixture.service.db).await.expect("compared");
        assert_eq!(differences, [], "{what}");
    }
}

/// Any sequence of fulfilling, returning, refunding and cancelling, each of which is cut off before its commit first, and made
/// twice.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn units_and_money_add_up_whatever_happens(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut cancelled = 0;
    for seed in 0..8 {
        let mut dice = Dice::new(seed);
        let quantities = [2, 1, 3].map(|most| 1 + i32::try_from(dice.below(most)).expect("it is small"));
        let (order, products) = fixture.paid_of(&quantities).await;
        let lines = products.into_iter().zip(quantities).map(|(product, quantity)| (product, quantity, 0, 0)).collect();
        let mut model = Model { order, lines, refunded: 0, is_cancelled: false };
        for step in 0..14 {
            let key = format!("{seed}-{step}");
            match dice.below(8) {
                0..3 => model.fulfill(&fixture, &mut dice, &key).await,
                3..6 => model.take_back(&fixture, &mut dice, &key).await,
                6 => model.refund(&fixture, &mut dice).await,
                _ => {
                    let is_legal = !model.is_sent() && !model.is_cancelled;
                    let outcome = fixture.cancel(order, &key).await;
                    assert_eq!(outcome.is_ok(), is_legal, "seed {seed}, step {step}");
                    model.is_cancelled |= is_legal;
                }
            }
            model.assert(&fixture, &format!("seed {seed}, step {step}")).await;
        }
        cancelled += u32::from(model.is_cancelled);
    }
    assert!((1..8).contains(&cancelled), "some were cancelled, others were sent: {cancelled}");
    assert_eq!(fixture.kit.parked().await, 0);
}
