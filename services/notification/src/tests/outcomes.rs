//! What the replies of a mail server mean, and what is recorded of them.

use std::time::Duration;

use chassis::Next;
use sqlx::PgPool;
use testkit::Log;

use super::sink::Mood;
use super::{Fixture, HOUR, confirmed, order_id, row};
use crate::deliver::emails;
use crate::refusals::report;
use crate::smtp::{Security, Smtp};

const NO_REPLY: &str = "the mail server did not reply to a mail that was handed over";

/// Each attempt may have been a delivery.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_mail_that_may_have_been_accepted_is_sent_three_times_at_most(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.attempted(Mood::LosesReply).await;
    assert_eq!(fixture.rows().await, [row("PENDING", 1, NO_REPLY)]);
    for _ in 0..20 {
        fixture.advance(HOUR);
        fixture.work().await;
    }
    assert_eq!((fixture.rows().await, fixture.sink.mails().len()), (vec![row("GIVEN_UP", 3, NO_REPLY)], 3));
}

/// Servers limit the mails of a connection. That says nothing of the server, so no mail waits.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_kept_connection_that_fails_is_replaced_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.sink.set(Mood::AcceptsOneEach);
    for number in 1..=3 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
        fixture.work().await;
    }
    assert_eq!((fixture.rows().await, fixture.sink.mails().len()), (vec![row("DELIVERED", 1, ""); 3], 3));
}

/// Each mail has few attempts without a reply: an outage of the server does not use up those of all.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn mails_wait_for_a_server_that_replies_to_none(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.sink.set(Mood::LosesReply);
    for number in 1..=30 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    for _ in 0..10 {
        fixture.work().await;
        fixture.advance(HOUR / 360);
    }
    let attempts: i32 = fixture.rows().await.iter().map(|(_, attempts, _)| attempts).sum();
    assert!((8..=26).contains(&attempts), "two sets, and then one each time: {attempts}");
    fixture.sink.set(Mood::Accepts);
    for _ in 0..4 {
        fixture.advance(HOUR);
        fixture.work().await;
    }
    assert!(fixture.rows().await.iter().all(|(state, ..)| state == "DELIVERED"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_mail_server_has_a_time_to_accept_what_it_has(db: PgPool) {
    let mut fixture = Fixture::open(db.clone()).await;
    let smtp = Smtp::local(fixture.sink.port, Security::Plain, Duration::from_secs(10));
    let (sink, smtp) = (fixture.sink.clone(), smtp.accepting_within(Duration::from_millis(100)));
    fixture = Fixture::open_with(db, |service| service.smtp = smtp).await;
    fixture.sink = sink;
    fixture.attempted(Mood::Stalls).await;
    assert_eq!((fixture.rows().await, fixture.sink.mails().len()), (vec![row("PENDING", 1, NO_REPLY)], 1));
}

/// Of us or of what we write, that is: neither is the customer's fault.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refusal_of_the_sender_or_of_the_content_marks_no_address(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (mood, state, code) in [
        (Mood::RefusesConnection("554"), "PENDING", "554"),
        (Mood::RefusesSender("550"), "PENDING", "550"),
        (Mood::RefusesSender("553 5.1.8"), "PENDING", "553"),
        (Mood::RefusesContent("550"), "REFUSED", "550"),
        (Mood::RefusesContent("550 5.1.1"), "REFUSED", "550"),
        (Mood::RefusesContent("451"), "PENDING", "451"),
    ] {
        fixture.forget().await;
        fixture.attempted(mood).await;
        let expected = row(state, 1, &format!("the mail server replied {code}"));
        assert_eq!(fixture.rows().await, [expected], "{mood:?}");
        assert_eq!(report(fixture.service.clone()).await.expect("nothing"), Next::AfterPause, "{mood:?}");
    }
    assert_eq!(fixture.users.refused(), [""; 0]);
}

/// What the mail server has accepted is not sent again because the database fails at that moment.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn outcomes_that_cannot_be_recorded_are_kept_until_they_can(db: PgPool) {
    let log = Log::keep();
    let fixture = Fixture::open(db).await;
    let events: Vec<_> = (1..=8).map(|number| confirmed(order_id(number))).collect();
    fixture.kit.deliver_together(&events).await;
    fixture
        .execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
             create trigger refuse before update on notification for each row
               when (old.lease is not null and new.lease is null) execute function refuse()",
        )
        .await;
    let worker = tokio::spawn(emails(fixture.service.clone()));
    while log.find("are recorded again later").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.sink.mails().len(), 8, "the others of the set continued");
    fixture.execute("drop trigger refuse on notification").await;
    assert_eq!(worker.await.expect("no panic").expect("recorded at last"), Next::AtOnce);
    assert_eq!(fixture.rows().await, vec![row("DELIVERED", 1, ""); 8]);
}

#[test]
fn mails_leave_the_machine_in_plain_text_only_where_a_setting_allows_it() {
    for (host, is_allowed, is_valid) in
        [("127.0.0.1", false, true), ("localhost", false, true), ("mail", false, false), ("mail", true, true)]
    {
        let smtp = Smtp::plain(host, is_allowed);
        assert_eq!(smtp.is_ok(), is_valid, "{host}");
        let refused = smtp.err().unwrap_or_default();
        assert_eq!(refused.contains("NOTIFICATION_SMTP_SECURITY"), !is_valid, "{refused}");
    }
}
