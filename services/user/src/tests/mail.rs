//! Links in mails: an address is verified, a password is reset.

use std::time::Duration;

use chassis::{Next, timestamp};
use contracts::souk::user::v1::user_event::Event;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use contracts::souk::user::v1::*;
use prost::Message;
use sqlx::PgPool;
use testkit::{Log, fields, published, reason};
use time::OffsetDateTime;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::register::PASSWORD;
use super::session::login;
use crate::mail::{COUNTED, Purpose};
use crate::reset_password::handle_request;

const NEW: &str = "another horse battery";

impl Fixture {
    async fn request_reset(&self, email: &str) -> Result<RequestPasswordResetResponse, Status> {
        let request = RequestPasswordResetRequest { email: email.to_owned() };
        Ok(self.users.clone().request_password_reset(request).await?.into_inner())
    }

    async fn handle_requests(&self) {
        while handle_request(self.service.clone()).await.expect("handled") == Next::AtOnce {}
    }

    /// The events that request mails.
    async fn mails(&self) -> Vec<MailRequested> {
        let events = published(&self.service.db).await.into_iter();
        let events = events.map(|it| UserEvent::decode(&*it.payload).expect("an event").event);
        events.filter_map(|it| if let Some(Event::MailRequested(mail)) = it { Some(mail) } else { None }).collect()
    }

    /// As the service that sends the mail.
    async fn link(&self, mail: &MailRequested) -> Result<GetMailLinkResponse, Status> {
        let request = GetMailLinkRequest { mail_request_id: mail.mail_request_id.clone() };
        let mut users = UserServiceClient::new(self.kit.connect("notification").await);
        Ok(users.get_mail_link(request).await?.into_inner())
    }

    /// The token of the last mail.
    async fn token(&self) -> String {
        let mails = self.mails().await;
        let link = self.link(&mails[mails.len() - 1]).await.expect("a link").link;
        link.split_once("#token=").expect("it has a token").1.to_owned()
    }

    async fn reset(&self, token: &str, new: &str) -> Result<(), Status> {
        let request = ResetPasswordRequest { token: token.to_owned(), new_password: new.to_owned() };
        self.users.clone().reset_password(request).await.map(|_| ())
    }

    async fn verify(&self, token: &str) -> Result<(), Status> {
        let request = VerifyEmailRequest { token: token.to_owned() };
        self.users.clone().verify_email(request).await.map(|_| ())
    }

    async fn is_verified(&self) -> bool {
        let user_id = self.user_id().await;
        let request = self.kit.customer(user_id, GetUserRequest { user_id: "me".into() });
        let user = self.users.clone().get_user(request).await.expect("there").into_inner().user.expect("a user");
        user.email_verify_time.is_some()
    }
}

fn assert_invalid(outcome: Result<(), Status>) {
    let refused = outcome.expect_err("the token is not valid");
    assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "MAIL_TOKEN_INVALID@souk.user".into()));
    assert_eq!(fields(&refused), ["token"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_address_is_verified_once_by_the_link_of_its_registration(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let mails = fixture.mails().await;
    assert_eq!((mails.len(), mails[0].purpose()), (1, MailPurpose::VerifyEmail));
    let mail = fixture.link(&mails[0]).await.expect("a link");
    assert_eq!((mail.email.as_str(), mail.display_name.as_str()), ("ada@example.com", "Ada"));
    assert!(mail.link.starts_with("https://shop.test/verify#token="), "{}", mail.link);
    assert_eq!(fixture.link(&mails[0]).await.expect("the same link"), mail, "a mail may be sent twice");

    let token = fixture.token().await;
    assert!(!fixture.is_verified().await);
    assert_invalid(fixture.reset(&token, NEW).await);
    fixture.verify(&token).await.expect("verified");
    assert!(fixture.is_verified().await);
    assert_invalid(fixture.verify(&token).await);
    let gone = fixture.link(&mails[0]).await.expect_err("it was used");
    assert_eq!((gone.code(), reason(&gone)), (Code::NotFound, "MAIL_REQUEST_NOT_FOUND@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_password_is_reset_once_and_all_sessions_end(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let session = fixture.signed_in().await;
    fixture.request_reset("Ada@Example.com").await.expect("requested");
    fixture.handle_requests().await;
    let token = fixture.token().await;
    assert_invalid(fixture.verify(&token).await);
    let common = fixture.reset(&token, "passwordpassword").await.expect_err("common");
    assert_eq!((reason(&common), fields(&common)), ("PASSWORD_COMMON@souk.user".into(), vec!["new_password".into()]));
    fixture.reset(&token, NEW).await.expect("the token is not used by a refused attempt");
    assert_eq!(fixture.count().await, (0, 1));
    fixture.refresh(&session.refresh_token).await.expect_err("its session has ended");
    let old =
        fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect_err("the old one");
    assert_eq!(reason(&old), "CREDENTIALS_INVALID@souk.user");
    fixture.sessions.clone().create_session(login("ada@example.com", NEW)).await.expect("the new one");
    assert!(fixture.is_verified().await, "the holder of the link reads the mail");
    assert_invalid(fixture.reset(&token, PASSWORD).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_concurrent_resets_one_succeeds(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    let token = fixture.token().await;
    let (one, other) = tokio::join!(fixture.reset(&token, NEW), fixture.reset(&token, "yet another horse battery"));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn links_expire_and_are_deleted(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    let (token, mails) = (fixture.token().await, fixture.mails().await);
    fixture.wait(Purpose::ResetPassword.lifetime());
    assert_invalid(fixture.reset(&token, NEW).await);
    fixture.link(&mails[1]).await.expect_err("it has expired");
    fixture.link(&mails[0]).await.expect("it is valid for longer");
    fixture.wait(Purpose::VerifyEmail.lifetime() + COUNTED);
    while crate::prune::prune(fixture.service.clone()).await.expect("pruned") == Next::AtOnce {}
    let left: i64 =
        sqlx::query_scalar("select count(*) from mail_request").fetch_one(&fixture.service.db).await.expect("counted");
    assert_eq!(left, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_link_to_reset_the_password_ends_when_it_is_replaced_or_the_account_disabled(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let session = fixture.signed_in().await;
    let session_id = session.session.expect("a session").session_id.parse().expect("a UUID");
    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    let token = fixture.token().await;
    fixture.change(session_id, PASSWORD, "one more horse battery").await.expect("changed");
    assert_invalid(fixture.reset(&token, NEW).await);

    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    let token = fixture.token().await;
    let user_id = fixture.user_id().await.to_string();
    let disable = fixture.kit.operator(DisableUserRequest { user_id: user_id.clone() });
    fixture.users.clone().disable_user(disable).await.expect("disabled");
    let enable = fixture.kit.operator(EnableUserRequest { user_id });
    fixture.users.clone().enable_user(enable).await.expect("enabled");
    assert_invalid(fixture.reset(&token, NEW).await);
    assert_eq!(fixture.mails().await.len(), 3, "the registration, and two requests");
}

/// What the call does depends on nothing that the database knows of the address: so it takes the same time, too.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_request_tells_nothing_about_the_address(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    fixture.register("k2", "bob@example.com").await.expect("registered");
    sqlx::query("update account set disabled_at = now() where email = 'bob@example.com'")
        .execute(&db)
        .await
        .expect("disabled");
    // Nobody who requests it waits for the account, or even reads it.
    let mut busy = db.begin().await.expect("a transaction");
    sqlx::query("lock table account in access exclusive mode").execute(&mut *busy).await.expect("locked");
    for email in ["ada@example.com", "bob@example.com", "eve@example.com", "eve@example.com"] {
        assert_eq!(fixture.request_reset(email).await.expect("requested"), RequestPasswordResetResponse {}, "{email}");
    }
    busy.rollback().await.expect("unlocked");
    fixture.handle_requests().await;
    let resets = fixture.mails().await.into_iter().filter(|mail| mail.purpose() == MailPurpose::ResetPassword);
    assert_eq!(resets.count(), 1, "one of them has an account that is not disabled");
    let left: i64 = sqlx::query_scalar("select count(*) from reset_request").fetch_one(&db).await.expect("counted");
    assert_eq!(left, 0, "no address is kept");
}

/// Nobody fills the mailbox of somebody else.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_user_gets_few_mails_an_hour(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let resets =
        async || fixture.mails().await.iter().filter(|mail| mail.purpose() == MailPurpose::ResetPassword).count();
    for _ in 0..5 {
        fixture.request_reset("ada@example.com").await.expect("requested");
        fixture.handle_requests().await;
    }
    assert_eq!(resets().await, 3);
    // Links that were used, have ended or are pruned still count.
    fixture.reset(&fixture.token().await, NEW).await.expect("reset");
    fixture.wait(COUNTED - Duration::from_secs(1));
    while crate::prune::prune(fixture.service.clone()).await.expect("pruned") == Next::AtOnce {}
    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    assert_eq!(resets().await, 3);
    fixture.wait(Duration::from_secs(1));
    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    assert_eq!(resets().await, 4);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_token_is_in_no_event_no_table_and_no_log(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let log = Log::keep();
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let token = fixture.token().await;
    assert!(token.len() == 43 && log.find(&token).is_empty());
    let dump = super::erase::dump(&db).await;
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &token).expect("base64url");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for trace in [token.clone(), hex(token.as_bytes()), hex(&bytes)] {
        assert!(!dump.contains(&trace), "{dump}");
    }
    let payload = published(&db).await.remove(0).payload;
    assert!(!String::from_utf8_lossy(&payload).contains("ada@"), "an event has no address either");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_the_service_that_sends_mails_gets_links(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let request = GetMailLinkRequest { mail_request_id: fixture.mails().await[0].mail_request_id.clone() };
    let mut order = UserServiceClient::new(fixture.kit.connect("order").await);
    let refused = order.get_mail_link(request.clone()).await.expect_err("not for another service");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused =
        fixture.users.clone().get_mail_link(fixture.kit.operator(request)).await.expect_err("nor for an operator");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let unknown = MailRequested { mail_request_id: Uuid::now_v7().to_string(), ..Default::default() };
    assert_eq!(reason(&fixture.link(&unknown).await.expect_err("unknown")), "MAIL_REQUEST_NOT_FOUND@souk.user");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_the_service_that_notifies_users_gets_their_contact(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let user_id = fixture.register("k1", "ada@example.com").await.expect("registered").user_id;
    let request = || GetContactRequest { user_id: user_id.clone() };
    let mut notification = UserServiceClient::new(fixture.kit.connect("notification").await);
    let contact = notification.get_contact(request()).await.expect("a contact").into_inner();
    assert_eq!((contact.email.as_str(), contact.display_name.as_str()), ("ada@example.com", ""));
    // Only now it is known whose name it is.
    fixture.verify(&fixture.token().await).await.expect("verified");
    let contact = notification.get_contact(request()).await.expect("a contact").into_inner();
    assert_eq!((contact.email.as_str(), contact.display_name.as_str()), ("ada@example.com", "Ada"));

    let mut order = UserServiceClient::new(fixture.kit.connect("order").await);
    let refused = order.get_contact(request()).await.expect_err("not for another service");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let operator = fixture.kit.operator(request());
    let refused = fixture.users.clone().get_contact(operator).await.expect_err("nor for an operator");
    assert_eq!(refused.code(), Code::PermissionDenied);

    let erase = fixture.kit.operator(EraseUserRequest { user_id: user_id.clone() });
    fixture.users.clone().erase_user(erase).await.expect("erased");
    let gone = notification.get_contact(request()).await.expect_err("the account was erased");
    assert_eq!((gone.code(), reason(&gone)), (Code::NotFound, "USER_NOT_FOUND@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_address_that_its_mail_server_refuses_is_marked_until_it_is_verified(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let user_id = fixture.register("k1", "ada@example.com").await.expect("registered").user_id;
    let mut notification = UserServiceClient::new(fixture.kit.connect("notification").await);
    let report = |refused_at: OffsetDateTime| ReportRefusedEmailRequest {
        user_id: user_id.clone(),
        refuse_time: Some(timestamp(refused_at)),
    };
    let before = fixture.service.clock.now();
    for _ in 0..2 {
        notification.report_refused_email(report(before)).await.expect("reported");
    }
    let contact = |user_id: &str| GetContactRequest { user_id: user_id.to_owned() };
    assert!(notification.get_contact(contact(&user_id)).await.expect("a contact").into_inner().email_refused);

    fixture.service.clock.advance(Duration::from_secs(60));
    fixture.verify(&fixture.token().await).await.expect("verified");
    notification.report_refused_email(report(before)).await.expect("an old report says nothing of the address now");
    assert!(!notification.get_contact(contact(&user_id)).await.expect("a contact").into_inner().email_refused);

    // It was verified before, and is not marked yet: the report is late all the same.
    let before = fixture.service.clock.now() + Duration::from_secs(30);
    fixture.service.clock.advance(Duration::from_secs(60));
    fixture.request_reset("ada@example.com").await.expect("requested");
    fixture.handle_requests().await;
    fixture.reset(&fixture.token().await, NEW).await.expect("reset");
    notification.report_refused_email(report(before)).await.expect("an old report says nothing of the address now");
    assert!(!notification.get_contact(contact(&user_id)).await.expect("a contact").into_inner().email_refused);

    // An operator knows better.
    fixture.service.clock.advance(Duration::from_secs(60));
    notification.report_refused_email(report(fixture.service.clock.now())).await.expect("reported");
    assert!(notification.get_contact(contact(&user_id)).await.expect("a contact").into_inner().email_refused);
    let enable = fixture.kit.operator(EnableUserRequest { user_id: user_id.clone() });
    let user = fixture.users.clone().enable_user(enable).await.expect("enabled").into_inner().user.expect("a user");
    assert_eq!(user.email_refuse_time, None);
    assert!(!notification.get_contact(contact(&user_id)).await.expect("a contact").into_inner().email_refused);

    let unknown = ReportRefusedEmailRequest { user_id: Uuid::now_v7().to_string(), ..report(before) };
    let unknown = notification.report_refused_email(unknown).await.expect_err("no such account");
    assert_eq!(reason(&unknown), "USER_NOT_FOUND@souk.user");
    let without = ReportRefusedEmailRequest { refuse_time: None, ..report(before) };
    let without = notification.report_refused_email(without).await.expect_err("no time");
    assert_eq!(fields(&without), ["refuse_time"]);
    let mut order = UserServiceClient::new(fixture.kit.connect("order").await);
    let refused = order.report_refused_email(report(before)).await.expect_err("not for another service");
    assert_eq!(refused.code(), Code::PermissionDenied);
}
