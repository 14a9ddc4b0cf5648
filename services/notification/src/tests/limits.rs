//! How much a user, and a phone number, gets within an hour.

use contracts::souk::user::v1::MailPurpose;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::texts::{messages, simulator};
use super::{Fixture, HOUR, PHONE, confirmed, mail_requested, of_user, order_id, row};
use crate::deliver::emails;
use crate::numbers;
use crate::sms::Sms;

const OTHER: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0003);

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_beyond_the_limit_of_a_user_waits(db: PgPool) {
    let fixture = Fixture::open_with(db, |service| service.per_hour = Some(2)).await;
    for number in 1..=3 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    fixture.work().await;
    let mut rows = fixture.rows().await;
    rows.sort();
    assert_eq!(rows, [row("DELIVERED", 1, ""), row("DELIVERED", 1, ""), row("PENDING", 0, "")]);
    fixture.advance(HOUR);
    fixture.work().await;
    assert_eq!((fixture.rows().await, fixture.sink.mails().len()), (vec![row("DELIVERED", 1, ""); 3], 3));
}

/// Nor do those that wait for their turn use up the time of workers: each is looked at when there is room.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_user_who_gets_too_many_delays_nobody_else(db: PgPool) {
    let fixture = Fixture::open_with(db, |service| service.per_hour = Some(2)).await;
    let events: Vec<_> = (1..=1_000).map(|number| confirmed(order_id(number))).collect();
    fixture.kit.deliver_together(&events).await;
    let mut rows = fixture.rows().await;
    rows.dedup();
    let dropped = row("DROPPED", 0, "too many notifications of the user wait");
    assert_eq!(rows, [row("PENDING", 0, ""), dropped.clone()]);
    assert_eq!(fixture.rows().await.iter().filter(|row| **row == dropped).count(), 500);
    fixture.work().await;
    fixture.advance(HOUR / 30);
    fixture.work().await;
    assert_eq!(fixture.sink.mails().len(), 2);
    let next = sqlx::query_scalar!(r#"select min(due_at) as "next!" from notification where due_at is not null"#);
    let next: OffsetDateTime = next.fetch_one(&fixture.service.db).await.expect("many wait");
    assert_eq!(next, fixture.service.clock.now() + HOUR - HOUR / 30, "when there is room");

    fixture.advance(HOUR / 2);
    fixture.kit.deliver(of_user(OTHER, confirmed(order_id(2_000)))).await;
    emails(fixture.service.clone()).await.expect("one set");
    assert_eq!(fixture.sink.mails().len(), 3, "the other user's is in the first set");
    fixture.advance(HOUR * 24);
    fixture.work().await;
    let rows = fixture.rows().await;
    assert_eq!(rows.iter().filter(|(state, ..)| state == "PENDING").count(), 0, "nothing waits for ever");
    assert!(rows.contains(&row("GIVEN_UP", 1, "too many wait for their turn")));
}

/// They are limited by the user service, and expire.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn links_are_exempt_from_the_limit_and_do_not_count(db: PgPool) {
    let fixture = Fixture::open_with(db, |service| service.per_hour = Some(1)).await;
    fixture.kit.deliver(mail_requested(MailPurpose::ResetPassword)).await;
    fixture.work().await;
    fixture.kit.deliver(confirmed(order_id(11))).await;
    fixture.work().await;
    fixture.kit.deliver(confirmed(order_id(12))).await;
    fixture.kit.deliver(mail_requested(MailPurpose::VerifyEmail)).await;
    fixture.work().await;
    let delivered = row("DELIVERED", 1, "");
    assert_eq!(fixture.rows().await, [delivered.clone(), delivered.clone(), row("PENDING", 0, ""), delivered]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_phone_number_is_limited_however_many_accounts_name_it(db: PgPool) {
    let port = simulator().await;
    let fixture = Fixture::open_with(db, |service| {
        (service.sms, service.per_hour) = (Some(Sms::local(port)), Some(2));
    });
    let fixture = fixture.await;
    for number in 1..=3 {
        let user_id = Uuid::from_u128(OTHER.as_u128() + number);
        fixture.kit.deliver(of_user(user_id, confirmed(order_id(number)))).await;
    }
    fixture.work_on_texts().await;
    assert_eq!(messages(port).await.len(), 2, "three accounts have it");
    let stored = sqlx::query_scalar!(r#"select string_agg(it::text, ' ') as "all!" from texted_number as it"#);
    let stored = stored.fetch_one(&fixture.service.db).await.expect("a row");
    assert!(!stored.contains(&PHONE[1..]), "{stored}");
    fixture.advance(HOUR);
    fixture.work_on_texts().await;
    assert_eq!(messages(port).await.len(), 3);
    fixture.advance(HOUR);
    numbers::prune(fixture.service.clone()).await.expect("pruned");
    let left =
        sqlx::query_scalar!(r#"select count(*) as "n!" from texted_number"#).fetch_one(&fixture.service.db).await;
    assert_eq!(left.expect("counted"), 0);
}

/// The message was counted before the hour was over, and was refused afterwards.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refused_message_makes_room_in_the_hour_in_which_it_was_counted(db: PgPool) {
    let fixture = Fixture::open_with(db, |service| service.per_hour = Some(1)).await;
    let (service, now) = (&fixture.service, fixture.kit.context.clock.now());
    let (hour, next) = (numbers::hour(now), numbers::hour(now + HOUR));
    for hour in [hour, next] {
        assert_eq!(service.numbers.take(service, PHONE, hour).await.expect("counted"), Ok(()));
    }
    fixture.advance(HOUR);
    service.numbers.give_back(service, PHONE, hour).await;
    assert_eq!(service.numbers.take(service, PHONE, hour).await.expect("counted"), Ok(()));
    assert_eq!(service.numbers.take(service, PHONE, next).await.expect("counted"), Err(next + HOUR));
}
