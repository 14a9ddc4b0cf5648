//! Which notifications there are, and what their mails say.

use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::user::v1::MailPurpose;
use sqlx::PgPool;
use testkit::order_event;

use super::{EMAIL, Fixture, HOUR, confirmed, mail_requested, order_id, row};
use crate::locale::Language;

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let mut lines = mail.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {mail}"))
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmed_order_is_one_mail_however_often_its_event_is_delivered(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let event = confirmed(order_id(1));
    fixture.kit.deliver(event.clone()).await;
    fixture.work().await;
    // As after the inbox was lost: another event of the same outcome.
    fixture.kit.deliver(chassis::event::Record { version: 9, ..event }).await;
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("DELIVERED", 1, "")]);
    let [mail] = &fixture.sink.mails()[..] else { panic!("{:?}", fixture.sink.mails()) };
    assert_eq!(header(mail, "Subject"), "Your order is confirmed");
    assert_eq!(header(mail, "From"), "Souk <shop@souk.test>");
    assert_eq!(header(mail, "To"), format!("=?utf-8?b?QWRhIDxMb3ZlbGFjZT4=?= <{EMAIL}>"));
    assert_eq!(header(mail, "Auto-Submitted"), "auto-generated");
    assert!(header(mail, "Message-ID").ends_with("@souk.test>"), "{mail}");
    assert!(mail.contains("2 x Tea & <sugar>") && mail.contains("Tea &amp; &lt;sugar&gt;"), "{mail}");
    assert!(mail.contains("multipart/alternative"), "{mail}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_outcome_of_an_order_has_its_mail_and_other_events_have_none(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let reason = || "CARD_DECLINED".to_owned();
    let cancelled = OrderCancelled { reason: CancelReason::CustomerRequest.into() };
    let fulfilled =
        OrderFulfilled { carrier: "DHL".to_owned(), tracking_number: "00340".to_owned(), ..Default::default() };
    let events = [
        Event::OrderPlaced(OrderPlaced::default()),
        Event::OrderReserved(OrderReserved::default()),
        Event::OrderPaid(OrderPaid::default()),
        Event::OrderFulfilled(fulfilled),
        Event::OrderRejected(OrderRejected { reason: reason(), skus: vec![] }),
        Event::OrderPaymentFailed(OrderPaymentFailed { reason: reason() }),
        Event::OrderCancelled(cancelled),
        Event::OrderExpired(OrderExpired { reason: reason() }),
    ];
    for (number, event) in (1..).zip(events) {
        fixture.kit.deliver(order_event(order_id(number), 5, event)).await;
    }
    fixture.work().await;
    let mut subjects: Vec<_> = fixture.sink.mails().iter().map(|mail| header(mail, "Subject").to_owned()).collect();
    subjects.sort();
    let expected = [
        "The payment of your order failed",
        "Your order could not be accepted",
        "Your order could not be completed",
        "Your order is cancelled",
        "Your order is on its way",
    ];
    assert_eq!(subjects, expected);
    assert_eq!(fixture.rows().await, vec![row("DELIVERED", 1, ""); 5]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn mails_with_links_have_the_link_of_the_user_service(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver(mail_requested(MailPurpose::ResetPassword)).await;
    fixture.kit.deliver(mail_requested(MailPurpose::VerifyEmail)).await;
    fixture.work().await;
    let mails = fixture.sink.mails();
    let mut subjects: Vec<_> = mails.iter().map(|mail| header(mail, "Subject")).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["Please verify your e-mail address", "Set a new password"]);
    for mail in &mails {
        assert!(
            mail.contains("https://shop.test/page#token") && mail.contains("1 January 2026 at 01:00 UTC"),
            "{mail}"
        );
        // Nor is the name, which may be anybody's text to a stranger.
        assert_eq!(header(mail, "To"), EMAIL);
        assert!(!mail.contains("Lovelace"), "{mail}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn texts_are_in_the_language_of_the_account_or_of_the_shop(db: PgPool) {
    let fixture = Fixture::open_with(db, |service| {
        service.language = Language::De;
        // There, it is the next day already.
        service.time_zone = "Pacific/Kiritimati".parse().expect("a time zone");
    });
    let fixture = fixture.await;
    fixture.kit.deliver(order_event(order_id(1), 5, Event::OrderCancelled(OrderCancelled::default()))).await;
    fixture.work().await;
    let [mail] = &fixture.sink.mails()[..] else { panic!("{:?}", fixture.sink.mails()) };
    assert_eq!(header(mail, "Subject"), "Ihre Bestellung ist storniert");
    assert!(mail.contains("1. Januar 2026"), "the day of the cancellation: {mail}");
    fixture.kit.deliver(confirmed(order_id(3))).await;
    fixture.work().await;
    let mail = fixture.sink.mails().pop().expect("another one");
    assert!(mail.contains("vom 18. September 2024"), "the day of the order: {mail}");
    fixture.users.set_language("en");
    fixture.kit.deliver(order_event(order_id(2), 5, Event::OrderCancelled(OrderCancelled::default()))).await;
    fixture.kit.deliver(mail_requested(MailPurpose::VerifyEmail)).await;
    fixture.work().await;
    let subjects: Vec<_> = fixture.sink.mails()[2..].iter().map(|mail| header(mail, "Subject").to_owned()).collect();
    assert!(subjects.contains(&"Your order is cancelled".to_owned()), "{subjects:?}");
    assert!(subjects.contains(&"Please verify your e-mail address".to_owned()), "{subjects:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_happened_to_an_order_first_is_told_first(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.kit.deliver(order_event(order_id(1), 5, Event::OrderCancelled(OrderCancelled::default()))).await;
    // As after an attempt that failed.
    fixture
        .execute("update notification set due_at = due_at + interval '1 minute' where kind = 'ORDER_CONFIRMED'")
        .await;
    fixture.work().await;
    assert_eq!(fixture.sink.mails(), [""; 0]);
    fixture.advance(HOUR);
    fixture.work().await;
    let mails = fixture.sink.mails();
    let subjects: Vec<_> = mails.iter().map(|mail| header(mail, "Subject")).collect();
    assert_eq!(subjects, ["Your order is confirmed", "Your order is cancelled"]);
}

/// A service that is new reads all events that there ever were.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nobody_is_told_of_what_happened_long_ago(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.advance(HOUR * 25);
    fixture.kit.deliver(confirmed(order_id(1))).await;
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("DROPPED", 0, "it happened too long ago")]);
    assert_eq!(fixture.sink.mails(), [""; 0]);
}
