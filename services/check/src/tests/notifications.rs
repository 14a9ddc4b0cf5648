//! I7: orders and their notifications.

use std::collections::HashMap;

use chassis::check::{Exemptions, Finding, Range};
use notification::check::{Deadlines, Told};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{assert_each_found, execute, id};
use crate::orders::compare_notifications;

const CONFIRMED: &str = "ORDER_CONFIRMED";

/// A notification that an order was confirmed, which was delivered.
pub(super) fn told(order_id: Uuid) -> [String; 1] {
    [format!(
        "insert into notification (notification_id, user_id, subject_id, kind, channel, event, occurred_at, state, attempts, error,
           created_at, wanted_at, delivered_at)
         values (gen_random_uuid(), gen_random_uuid(), '{order_id}', '{CONFIRMED}', 'EMAIL', '', now(), 'DELIVERED', 1, '', now(),
           now(), now())"
    )]
}

fn compare(stages: &[(&str, bool)], told: &[(&str, bool)]) -> Finding {
    let order = Uuid::from_u128(1);
    let stages = stages.iter().map(|(stage, is_old)| ((*stage).to_owned(), *is_old)).collect::<HashMap<_, _>>();
    let told = told.iter().map(|(kind, is_late)| {
        let state = if *is_late { "PENDING" } else { "DELIVERED" };
        Told { kind: (*kind).to_owned(), channel: "EMAIL".to_owned(), state: state.to_owned(), is_late: *is_late }
    });
    let told = told.collect::<Vec<_>>();
    compare_notifications(&HashMap::from([(order, stages)]), &HashMap::from([(order, told)]), &Exemptions::default())
}

#[test]
fn an_order_and_its_notifications_that_disagree() {
    // Nobody is told that an order was placed.
    let sound = || compare(&[("PLACED", true), ("CONFIRMED", true), ("FULFILLED", false)], &[(CONFIRMED, false)]);
    assert_each_found(vec![
        ("a customer who was not told", sound(), compare(&[("CONFIRMED", true)], &[])),
        ("a customer who was told what did not happen", sound(), compare(&[], &[(CONFIRMED, false)])),
        ("a notification that waits for too long", sound(), compare(&[("CONFIRMED", true)], &[(CONFIRMED, true)])),
    ]);
    let unknown = compare_notifications(
        &HashMap::new(),
        &HashMap::from([(
            Uuid::from_u128(1),
            vec![Told {
                kind: CONFIRMED.to_owned(),
                channel: "EMAIL".to_owned(),
                state: String::new(),
                is_late: false,
            }],
        )]),
        &Exemptions::default(),
    );
    assert_eq!(unknown.violations.len(), 1, "a notification of an order that does not exist: {unknown:?}");
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn the_stages_of_orders_are_read_from_their_events(db: PgPool) {
    let events = ["Placed", "Confirmed", "Paid", "PaymentFailed", "Cancelled"];
    let insert = events.iter().zip(1..).map(|(event, version)| {
        format!(
            "insert into order_event (order_id, version, event_id, type, payload, actor, occurred_at)
             values ('{}', {version}, gen_random_uuid(), 'souk.order.v1.Order{event}', '', '', now() - interval '{version} minutes')",
            id(1),
        )
    });
    execute(&db, insert.collect()).await;
    let since = OffsetDateTime::now_utc() - Duration::seconds(200);
    let stages = order::check::stages(&db, Range::ALL, since).await.expect("read");
    let expected =
        [("PLACED", false), ("CONFIRMED", false), ("PAID", false), ("PAYMENT_FAILED", true), ("CANCELLED", true)];
    let expected = expected.map(|(stage, is_old)| (stage.to_owned(), is_old));
    assert_eq!(stages, HashMap::from([(id(1), HashMap::from(expected))]));
}

async fn told_by(db: &PgPool, ended: OffsetDateTime) -> HashMap<Uuid, Vec<Told>> {
    let deadlines = Deadlines::read(db, ended).await.expect("read");
    notification::check::told(db, Range::ALL, &deadlines).await.expect("read")
}

#[sqlx::test(migrator = "notification::MIGRATOR")]
async fn a_notification_that_waits_is_late(db: PgPool) {
    execute(&db, told(id(1)).to_vec()).await;
    let pending = "update notification set state = 'PENDING', due_at = now(), delivered_at = null";
    execute(&db, vec![pending.to_owned()]).await;
    for (late, is_late) in [(Duration::hours(1), true), (Duration::hours(-1), false)] {
        let told = told_by(&db, OffsetDateTime::now_utc() + late).await;
        let expected =
            Told { kind: CONFIRMED.to_owned(), channel: "EMAIL".to_owned(), state: "PENDING".to_owned(), is_late };
        assert_eq!(told, HashMap::from([(id(1), vec![expected])]));
    }
}

/// Workers claim what is due for longest, so one that others overtake is never claimed. However long the mail server is away, none is
/// overtaken.
#[sqlx::test(migrator = "notification::MIGRATOR")]
async fn a_notification_that_was_overtaken_is_late(db: PgPool) {
    execute(&db, [told(id(1)), told(id(2))].concat()).await;
    let long_ago = OffsetDateTime::now_utc() - Duration::days(2);
    for (due, kind, is_late) in [("20 minutes", "", true), ("5 minutes", "", false), ("20 minutes", "EARLIER", false)] {
        let pending = format!(
            "update notification set state = 'PENDING', due_at = now() - interval '{due}', delivered_at = null
             where subject_id = '{}' and kind = '{CONFIRMED}'",
            id(1)
        );
        let earlier = format!(
            "insert into notification select (jsonb_populate_record(it, jsonb_build_object('notification_id', '{}'::uuid,
               'kind', '{kind}', 'due_at', now() + interval '1 hour'))).*
             from notification as it where subject_id = '{}' and '{kind}' <> ''",
            Uuid::nil(),
            id(1)
        );
        execute(&db, vec![pending, earlier]).await;
        let told = told_by(&db, long_ago).await;
        let confirmed = told[&id(1)].iter().find(|it| it.kind == CONFIRMED).expect("it is there");
        assert_eq!(confirmed.is_late, is_late, "due since {due}, after {kind:?}");
    }
}
