//! Deliveries that fail, and processes that are killed.

use std::time::Duration;

use chassis::Next;
use contracts::souk::notification::v1::ResendNotificationRequest;
use contracts::souk::user::v1::MailPurpose;
use sqlx::PgPool;
use testkit::{CUSTOMER, Log, try_event_at};
use tonic::Code;

use super::sink::Mood;
use super::{EMAIL, Fixture, HOUR, LEASE, confirmed, mail_requested, order_id, row};
use crate::claim::claim;
use crate::deliver::emails;
use crate::kind::{Channel, State};
use crate::outcome::{Outcome, RetryReason};
use crate::record::record;
use crate::refusals::report;
use crate::smtp::{Security, Smtp};

const MINUTE: Duration = Duration::from_secs(60);
const NO_CONNECTION: &str = "there is no connection to the mail server";

impl Fixture {
    /// A confirmed order whose delivery is attempted once.
    pub(super) async fn attempted(&self, mood: Mood) {
        self.sink.set(mood);
        self.kit.deliver(confirmed(order_id(1))).await;
        self.work().await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn mails_wait_for_the_mail_server(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.attempted(Mood::IsAway).await;
    let [(state, attempts, _)] = &fixture.rows().await[..] else { panic!("one notification") };
    assert_eq!((state.as_str(), *attempts), ("PENDING", 1));
    for number in 2..=30 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    for _ in 0..10 {
        fixture.work().await;
        fixture.advance(MINUTE);
    }
    assert_eq!(fixture.sink.mails(), [""; 0]);
    let attempts: i32 = fixture.rows().await.iter().map(|(_, attempts, _)| attempts).sum();
    assert!((2..=11).contains(&attempts), "one of all is attempted each time, but there were {attempts} attempts");
    fixture.sink.set(Mood::Accepts);
    fixture.work().await;
    assert_eq!(fixture.sink.mails().len(), 30, "the first that succeeds lets all others follow at once");
    assert!(fixture.rows().await.iter().all(|(state, ..)| state == "DELIVERED"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refusal_is_recorded_and_not_attempted_again_and_the_address_is_kept_nowhere(db: PgPool) {
    let log = Log::keep();
    let fixture = Fixture::open(db).await;
    fixture.attempted(Mood::RefusesRecipient("550 5.1.1")).await;
    let refused = [row("REFUSED", 1, "the mail server replied 550")];
    assert_eq!(fixture.rows().await, refused);
    fixture.sink.set(Mood::Accepts);
    fixture.advance(HOUR);
    fixture.work().await;
    assert_eq!((fixture.rows().await, fixture.sink.mails().len()), (refused.to_vec(), 0));
    let stored = sqlx::query_scalar!(r#"select string_agg(notification::text, ' ') as "all!" from notification"#);
    let stored = stored.fetch_one(&fixture.service.db).await.expect("rows");
    assert!(!stored.contains(EMAIL) && !stored.contains("Ada"), "{stored}");
    assert_eq!(log.find("the mail server replied 550").len(), 1);
    assert_eq!(log.find("ada@"), [""; 0]);
}

/// Also when the user service is away at first. Only mails with links, and those that are resent, go to such an address.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_user_service_marks_an_address_that_is_refused(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.attempted(Mood::RefusesRecipient("550 5.1.1")).await;
    fixture.users.fail(Some(Code::ResourceExhausted));
    assert_eq!(report(fixture.service.clone()).await.expect("tried"), Next::AfterPause);
    assert_eq!(fixture.users.refused(), [""; 0]);
    fixture.users.fail(None);
    assert_eq!(report(fixture.service.clone()).await.expect("reported"), Next::AtOnce);
    assert_eq!(report(fixture.service.clone()).await.expect("nothing is left"), Next::AfterPause);
    assert_eq!(fixture.users.refused(), [CUSTOMER.to_string()]);

    fixture.sink.set(Mood::Accepts);
    fixture.kit.deliver(confirmed(order_id(2))).await;
    fixture.kit.deliver(mail_requested(MailPurpose::VerifyEmail)).await;
    fixture.work().await;
    let before = row("REFUSED", 1, "a mail server has refused the address before");
    assert_eq!(fixture.rows().await[1..], [before, row("DELIVERED", 1, "")]);
    let first = sqlx::query_scalar!("select notification_id from notification order by notification_id limit 1");
    let first = first.fetch_one(&fixture.service.db).await.expect("a row");
    fixture.advance(MINUTE);
    let request = fixture.kit.operator(ResendNotificationRequest { notification_id: first.to_string() });
    fixture.client.clone().resend_notification(request).await.expect("resent");
    fixture.work().await;
    assert_eq!((fixture.rows().await[0].clone(), fixture.sink.mails().len()), (row("DELIVERED", 1, ""), 2));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_report_that_fails_holds_up_no_other(db: PgPool) {
    let log = Log::keep();
    let fixture = Fixture::open(db).await;
    fixture.sink.set(Mood::RefusesRecipient("550 5.1.1"));
    for number in 1..=2 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    fixture.work().await;
    for (code, attempts) in [(Code::Internal, 2), (Code::Unavailable, 3)] {
        fixture.users.fail(Some(code));
        assert_eq!(report(fixture.service.clone()).await.expect("tried"), Next::AfterPause);
        assert_eq!(log.find("is reported to the user service later").len(), attempts, "{code}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_a_refusal_of_the_mailbox_marks_the_address(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (reply, is_of_mailbox) in
        [("550 5.1.1", true), ("501 5.1.3", true), ("550", false), ("501", false), ("553", false), ("552 5.2.2", false)]
    {
        fixture.forget().await;
        fixture.users.verify();
        fixture.attempted(Mood::RefusesRecipient(reply)).await;
        assert_eq!(fixture.rows().await, [row("REFUSED", 1, &format!("the mail server replied {}", &reply[..3]))]);
        let reported = report(fixture.service.clone()).await.expect("tried");
        assert_eq!(reported == Next::AtOnce, is_of_mailbox, "{reply}");
    }
}

/// Servers refuse us as a client, or our sender, when they know the recipient. The next mail may be to one whom they accept.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refusal_by_a_policy_is_attempted_again_and_marks_no_address(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for reply in ["550 5.7.1", "554 5.7.1", "554", "550 5.1.8", "501 5.5.2", "503"] {
        fixture.forget().await;
        fixture.attempted(Mood::RefusesRecipient(reply)).await;
        assert_eq!(fixture.rows().await, [row("PENDING", 1, &format!("the mail server replied {}", &reply[..3]))]);
        assert_eq!(report(fixture.service.clone()).await.expect("nothing"), Next::AfterPause, "{reply}");
    }
    fixture.sink.set(Mood::Accepts);
    fixture.advance(HOUR);
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("DELIVERED", 2, "")]);
}

/// Of one account, perhaps: other mails do not wait for it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_error_of_the_user_service_delays_one_mail_only(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.users.fail(Some(Code::Internal));
    fixture.attempted(Mood::Accepts).await;
    assert_eq!(fixture.rows().await, [row("PENDING", 1, "the user service replied Internal")]);
    fixture.users.fail(None);
    for number in 2..=9 {
        fixture.kit.deliver(confirmed(order_id(number))).await;
    }
    fixture.work().await;
    assert_eq!(fixture.sink.mails().len(), 8);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn other_failures_are_attempted_again_until_they_are_given_up(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (mood, error) in [
        (Mood::RefusesRecipient("451"), "the mail server replied 451"),
        (Mood::RefusesRecipient("530 5.7.0"), "the mail server replied 530"),
        (Mood::RefusesConnection("421"), "the mail server replied 421"),
    ] {
        fixture.forget().await;
        fixture.attempted(mood).await;
        assert_eq!(fixture.rows().await, [row("PENDING", 1, error)], "{mood:?}");
    }
    fixture.advance(HOUR * 24);
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("GIVEN_UP", 2, "the mail server replied 421")]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nothing_is_sent_without_tls_where_it_is_required(db: PgPool) {
    let (mut fixture, within) = (Fixture::open(db.clone()).await, Duration::from_secs(10));
    for (security, error) in [
        (Security::Starttls, "the mail server does not offer what the settings require"),
        (Security::Tls, "there is no TLS with the mail server"),
    ] {
        fixture.forget().await;
        let smtp = Smtp::local(fixture.sink.port, security, within);
        let sink = fixture.sink.clone();
        fixture = Fixture::open_with(db.clone(), |service| service.smtp = smtp).await;
        fixture.sink = sink;
        fixture.attempted(Mood::Accepts).await;
        let rows = fixture.rows().await;
        assert!(rows == [row("PENDING", 1, error)] || rows == [row("PENDING", 1, NO_CONNECTION)], "{rows:?}");
        assert_eq!(fixture.sink.mails(), [""; 0]);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_delivery_waits_for_the_user_service(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.users.fail(Some(Code::ResourceExhausted));
    fixture.attempted(Mood::Accepts).await;
    assert_eq!(fixture.rows().await, [row("PENDING", 1, "the user service is away: ResourceExhausted")]);
    fixture.users.fail(None);
    fixture.advance(MINUTE);
    fixture.work().await;
    assert_eq!((fixture.rows().await, fixture.sink.mails().len()), (vec![row("DELIVERED", 2, "")], 1));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nobody_is_notified_whose_account_was_erased_or_whose_link_has_expired(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.users.fail(Some(Code::NotFound));
    fixture.kit.deliver(mail_requested(MailPurpose::ResetPassword)).await;
    fixture.attempted(Mood::Accepts).await;
    assert_eq!(fixture.rows().await, vec![row("DROPPED", 1, "there is nobody to notify"); 2]);
    assert_eq!(fixture.sink.mails(), [""; 0]);
}

/// Wherever a process is killed, another one delivers what it left, once its lease has ended.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn killed_at_each_stage_every_notification_is_delivered(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let service = &fixture.service;
    // Before the event's transaction commits: the event is delivered again.
    try_event_at(&fixture.kit, &confirmed(order_id(1)), "notification").await;
    // After the claim.
    assert_eq!(claim(service, Channel::Email, 16).await.expect("claimed").len(), 1);
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("PENDING", 1, "")], "nobody else delivers it under the lease");
    fixture.advance(LEASE);
    // After the mail server accepted it, before that is recorded.
    let killed = claim(service, Channel::Email, 16).await.expect("claimed").pop().expect("the lease has ended");
    fixture.sink.set(Mood::LosesReply);
    let outcome = crate::deliver::attempt(service, &killed).await;
    assert!(matches!(outcome, Outcome::Retry(RetryReason::OutcomeUnknown, _)), "{outcome:?}");
    fixture.sink.set(Mood::Accepts);
    fixture.advance(LEASE);
    fixture.work().await;
    assert_eq!(fixture.rows().await, [row("DELIVERED", 3, "")]);
    // One that was only frozen changes nothing.
    let too_late = [(killed.into(), Outcome::Ended(State::Refused, "too late".to_owned()))];
    record(service, &too_late).await.expect("nothing to do");
    assert_eq!(fixture.rows().await, [row("DELIVERED", 3, "")]);
    let mails = fixture.sink.mails();
    let ids = mails.iter().map(|mail| mail.lines().find(|line| line.starts_with("Message-ID")).expect("an id"));
    let ids: Vec<_> = ids.collect();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]), "a mail that is sent twice can be recognised");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn several_workers_deliver_each_notification_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let events: Vec<_> = (1..=20).map(|number| confirmed(order_id(number))).collect();
    fixture.kit.deliver_together(&events).await;
    let workers = (0..4).map(|_| {
        let service = fixture.service.clone();
        tokio::spawn(async move { while emails(service.clone()).await.expect("delivered") == Next::AtOnce {} })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
    assert_eq!(fixture.rows().await, vec![row("DELIVERED", 1, ""); 20]);
    assert_eq!(fixture.sink.mails().len(), 20);
}
