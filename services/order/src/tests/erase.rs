//! Of a user who was erased, no shipping address stays; what happened to their orders does.

use std::time::Duration;

use chassis::Next;
use chassis::event::Record;
use contracts::event::Event as _;
use contracts::souk::order::v1::{CreateOrderRequest, OrderLine, ShippingAddress};
use contracts::souk::user::v1::user_event::Event;
use contracts::souk::user::v1::{UserErased, UserEvent};
use prost::Message;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, captured, record, stock_reserved};
use uuid::Uuid;

use super::Fixture;
use super::rebuild::compare;
use crate::erase::erase_addresses;

pub(super) fn erased(user_id: Uuid) -> Record {
    let event = Event::UserErased(UserErased {});
    let event_type = event.event_type();
    let event = UserEvent { user_id: user_id.to_string(), event: Some(event) };
    record(event_type, user_id, 1, event.encode_to_vec())
}

impl Fixture {
    async fn place_with_address(&self, user_id: Uuid) -> Uuid {
        let address = ShippingAddress {
            recipient: "Ada Lovelace".into(),
            lines: vec!["12 St James's Square".into()],
            city: "London".into(),
            postal_code: "SW1Y 4LB".into(),
            country: "GB".into(),
        };
        let request =
            CreateOrderRequest { shipping_address: Some(address), ..self.wanted(&Uuid::now_v7().to_string()) };
        let order = self.client.clone().create_order(self.kit.customer(user_id, request)).await.expect("placed");
        order.into_inner().order.expect("an order").order_id.parse().expect("a UUID")
    }

    /// What the jobs of replicas do until nothing is due.
    async fn erase_due(&self) {
        while erase_addresses(self.service.clone()).await.expect("erased") == Next::AtOnce {}
    }

    async fn addresses(&self) -> Vec<Uuid> {
        sqlx::query_scalar("select order_id from order_shipping_address order by order_id")
            .fetch_all(&self.service.db)
            .await
            .expect("addresses")
    }

    async fn waiting(&self) -> i64 {
        sqlx::query_scalar("select count(*) from erased_user").fetch_one(&self.service.db).await.expect("counted")
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_address_goes_when_its_order_has_ended(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let other = Uuid::from_u128(99);
    let (ended, confirmed, pending, of_another) = (
        fixture.place_with_address(CUSTOMER).await,
        fixture.place_with_address(CUSTOMER).await,
        fixture.place_with_address(CUSTOMER).await,
        fixture.place_with_address(other).await,
    );
    fixture.cancel(ended, "c1").await.expect("cancelled");
    for order in [confirmed, pending] {
        fixture.kit.deliver(stock_reserved(order)).await;
    }
    fixture.kit.deliver(authorized(confirmed)).await;
    fixture.kit.deliver(captured(confirmed, 2_500)).await;
    let before = fixture.order(confirmed).await;

    fixture.kit.deliver(erased(CUSTOMER)).await;
    fixture.erase_due().await;
    assert_eq!(fixture.addresses().await, [confirmed, pending, of_another], "what is on its way is delivered");
    fixture.cancel(pending, "c2").await.expect("cancelled");
    fixture.kit.context.clock.advance(Duration::from_secs(60));
    fixture.erase_due().await;
    assert_eq!(fixture.addresses().await, [confirmed, of_another]);

    fixture.fulfill(confirmed, "f1").await.expect("delivered");
    fixture.kit.context.clock.advance(Duration::from_secs(3_600));
    fixture.erase_due().await;
    assert_eq!(fixture.addresses().await, [of_another]);
    assert_eq!(fixture.waiting().await, 0, "nobody looks for addresses of this user any more");

    let after = fixture.order(confirmed).await;
    let sent = before.items.into_iter().map(|line| OrderLine { fulfilled_quantity: line.quantity, ..line });
    assert_eq!((after.total, after.items), (before.total, sent.collect()), "what happened stays");
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (4, vec![]), "and is what the events say");
}

/// With an access token that was valid a moment longer.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_is_placed_after_the_erasure_keeps_no_address_either(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver(erased(CUSTOMER)).await;
    fixture.erase_due().await;
    let late = fixture.place_with_address(CUSTOMER).await;
    fixture.cancel(late, "c1").await.expect("cancelled");
    fixture.kit.context.clock.advance(Duration::from_secs(60));
    fixture.erase_due().await;
    assert!(fixture.addresses().await.is_empty());
    assert_eq!(fixture.waiting().await, 1, "another may follow");
    fixture.kit.context.clock.advance(Duration::from_secs(3_600));
    fixture.erase_due().await;
    assert_eq!(fixture.waiting().await, 0);
}

/// Events of orders and of accounts may share a transaction, and events of accounts may be repeated.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_erasure_is_consumed_beside_other_events(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place_with_address(CUSTOMER).await;
    let records = [erased(CUSTOMER), stock_reserved(order), erased(Uuid::from_u128(99))];
    fixture.kit.deliver_together(&records).await;
    fixture.kit.deliver_together(&records).await;
    assert_eq!(fixture.waiting().await, 2);
    assert_eq!(fixture.published(order).await, ["OrderPlaced", "OrderReserved"]);
    assert_eq!(fixture.kit.parked().await, 0);
}
