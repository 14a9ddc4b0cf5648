use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderCancelled, OrderConfirmed, OrderEvent};
use prost::Message;
use sqlx::PgPool;
use testkit::order_event;
use uuid::Uuid;

use super::Fixture;
use super::drive::reserved;

/// Of orders whose events are handled together, each gets what its own events want, whatever was known of it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn events_that_are_consumed_together_set_the_goal_of_each_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (known, new, ended, stranger) =
        (fixture.reserved("pm_card_visa").await, Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    fixture.work().await;
    let confirmed = || Event::OrderConfirmed(OrderConfirmed::default());
    let set = [
        order_event(new, 2, reserved("pm_card_visa")),
        order_event(known, 3, confirmed()),
        order_event(ended, 2, reserved("pm_card_visa")),
        order_event(stranger, 3, confirmed()),
        order_event(ended, 3, Event::OrderCancelled(OrderCancelled::default())),
    ];
    fixture.kit.deliver_together(&set).await;
    fixture.kit.deliver_together(&set).await;
    fixture.work().await;
    fixture.expect(new, "AUTHORIZED", &["AUTHORIZATION"], &["PaymentAuthorized"]).await;
    fixture.expect(known, "CAPTURED", &["AUTHORIZATION", "CAPTURE"], &["PaymentAuthorized", "PaymentCaptured"]).await;
    fixture.expect(ended, "VOIDED", &[], &[]).await;
    let count = sqlx::query_scalar::<_, i64>("select count(*) from payment").fetch_one(&fixture.service.db).await;
    assert_eq!(count.expect("a count"), 3, "what has no payment gets none");
}

/// One that cannot be read keeps no other from having its effect.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_that_cannot_be_read_becomes_a_dead_letter_alone(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (broken, new) = (Uuid::now_v7(), Uuid::now_v7());
    let mut record = order_event(broken, 2, reserved("pm_card_visa"));
    let event = OrderEvent { total: None, ..OrderEvent::decode(&*record.payload).expect("an event") };
    record.payload = event.encode_to_vec();
    fixture.kit.deliver_together(&[record, order_event(new, 2, reserved("pm_card_visa"))]).await;
    fixture.work().await;
    assert_eq!(fixture.state(new).await, "AUTHORIZED");
    let dead = sqlx::query_scalar::<_, String>("select error from dead_letter where key = $1").bind(broken);
    assert_eq!(dead.fetch_all(&fixture.service.db).await.expect("dead letters"), ["it has no total"]);
}
