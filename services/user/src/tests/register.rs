use contracts::souk::user::v1::*;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::session::login;

pub(super) const PASSWORD: &str = "correct horse battery";

pub(super) fn registration(key: &str, email: &str) -> RegisterUserRequest {
    RegisterUserRequest {
        request_id: key.to_owned(),
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        language_code: String::new(),
    }
}

impl Fixture {
    pub(super) async fn register(&self, key: &str, email: &str) -> Result<User, Status> {
        let response = self.users.clone().register_user(registration(key, email)).await?;
        Ok(response.into_inner().user.expect("a success has the user"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_same_key_registers_once_whatever_the_password(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let first = fixture.register("k1", "Ada@Example.com").await.expect("registered");
    assert_eq!(first.email, "ada@example.com");
    let again =
        RegisterUserRequest { password: "another long password".into(), ..registration("k1", "ada@example.com") };
    let again = fixture.users.clone().register_user(again).await.expect("replayed").into_inner().user;
    assert_eq!(again, Some(first));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_belongs_to_one_body_and_an_address_to_one_account(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let other = RegisterUserRequest { display_name: "Eve".into(), ..registration("k1", "ada@example.com") };
    let reused = fixture.users.clone().register_user(other).await.expect_err("another body");
    assert_eq!((reused.code(), reason(&reused)), (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED@souk.user".into()));
    let taken = fixture.register("k2", "ADA@example.com").await.expect_err("taken");
    assert_eq!((taken.code(), reason(&taken)), (Code::AlreadyExists, "EMAIL_TAKEN@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_is_required_and_may_come_as_a_header(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let none = fixture.register("", "ada@example.com").await.expect_err("no key");
    assert_eq!(
        (reason(&none), fields(&none)),
        ("IDEMPOTENCY_KEY_REQUIRED@souk.user".into(), vec!["request_id".into()])
    );

    let mut request = tonic::Request::new(registration("", "ada@example.com"));
    request.metadata_mut().insert("idempotency-key", "h1".parse().expect("visible"));
    let by_header = fixture.users.clone().register_user(request).await.expect("registered").into_inner().user;
    assert_eq!(by_header, fixture.register("h1", "ada@example.com").await.ok(), "the same key, the same request");

    let mut request = tonic::Request::new(registration("h2", "ada@example.com"));
    request.metadata_mut().insert("idempotency-key", "h1".parse().expect("visible"));
    let both = fixture.users.clone().register_user(request).await.expect_err("two keys");
    assert_eq!(reason(&both), "IDEMPOTENCY_KEYS_DIFFER@souk.user");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_bad_fields_are_named_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let bad = RegisterUserRequest { email: "ada".into(), password: "short".into(), ..registration("k", "") };
    let bad = RegisterUserRequest { email: "ada".into(), display_name: String::new(), ..bad };
    let refused = fixture.users.clone().register_user(bad).await.expect_err("three are wrong");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["email", "password", "display_name"]);
    assert!(!refused.message().contains("short"), "a password is not repeated");
    let nul = RegisterUserRequest { display_name: "A\0a".into(), ..registration("k", "ada@example.com") };
    assert_eq!(fields(&fixture.users.clone().register_user(nul).await.expect_err("a NUL")), ["display_name"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_registrations_at_once_one_wins(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (a, b) = tokio::join!(fixture.register("k1", "ada@example.com"), fixture.register("k2", "ada@example.com"));
    assert_eq!([&a, &b].iter().filter(|it| it.is_ok()).count(), 1);
    let loser = a.err().or(b.err()).expect("one lost");
    assert_eq!(reason(&loser), "EMAIL_TAKEN@souk.user");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn people_see_themselves_and_operators_see_anybody(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let bob = fixture.register("k2", "bob@example.com").await.expect("registered");
    let id = |user: &User| Uuid::parse_str(&user.user_id).expect("a UUID");
    let ask = |user_id: &str| GetUserRequest { user_id: user_id.to_owned() };

    let me = fixture.users.clone().get_user(fixture.kit.customer(id(&ada), ask("me"))).await.expect("me").into_inner();
    assert_eq!(me.user, Some(ada.clone()));
    let other =
        fixture.users.clone().get_user(fixture.kit.customer(id(&ada), ask(&bob.user_id))).await.expect_err("not hers");
    assert_eq!((other.code(), reason(&other)), (Code::NotFound, "USER_NOT_FOUND@souk.user".into()));
    let any = fixture.users.clone().get_user(fixture.kit.operator(ask(&bob.user_id))).await.expect("any").into_inner();
    assert_eq!(any.user, Some(bob));
    let anonymous = fixture.users.clone().get_user(ask("me")).await.expect_err("no token");
    assert_eq!((anonymous.code(), reason(&anonymous)), (Code::Unauthenticated, "TOKEN_MISSING@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_password_is_stored_as_it_is(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let hash =
        sqlx::query_scalar!("select password_hash from account").fetch_one(&fixture.service.db).await.expect("one row");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let responses =
        sqlx::query_scalar!("select response from idempotency").fetch_all(&fixture.service.db).await.expect("rows");
    let leaks = |bytes: &Vec<u8>| bytes.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes());
    assert!(!responses.iter().any(leaks));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_belongs_to_one_address(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("hello-1", "ada@example.com").await.expect("registered");
    let bob = fixture.register("hello-1", "bob@example.com").await.expect("another visitor");
    assert_ne!(ada.user_id, bob.user_id);
    assert_eq!(fixture.register("hello-1", "ADA@example.com").await.expect("a repeat"), ada);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn international_addresses_have_one_form_and_impossible_ones_none(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "Ada@B\u{fc}cher.example").await.expect("registered");
    assert_eq!(ada.email, "ada@xn--bcher-kva.example");
    let taken = fixture.register("k2", "ada@XN--bcher-kva.example").await.expect_err("the same address");
    assert_eq!(reason(&taken), "EMAIL_TAKEN@souk.user");
    for email in ["ada@b\u{fc}cher.example", "ada@BU\u{308}CHER.example", "ada@xn--bcher-kva.example"] {
        fixture.sessions.clone().create_session(login(email, PASSWORD)).await.expect(email);
    }
    for bad in ["a..b@example.com", "a.@example.com", "@", "a@-x.com", "a@x..com", "\u{e4}@example.com"] {
        let refused = fixture.register("k3", bad).await.expect_err(bad);
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["email".to_owned()]), "{bad}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_name_is_one_line_with_something_to_see(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for bad in [" ", "\u{200b}", "Ada\nLovelace", "Ada\u{1b}[2J", "\u{202e}adA"] {
        let request = RegisterUserRequest { display_name: bad.into(), ..registration("k1", "ada@example.com") };
        let refused = fixture.users.clone().register_user(request).await.expect_err(bad);
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["display_name".to_owned()]));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_id_is_the_same_in_capitals(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let me = Uuid::parse_str(&ada.user_id).expect("a UUID");
    let user_id = ada.user_id.to_uppercase();
    let got =
        fixture.users.clone().get_user(fixture.kit.customer(me, GetUserRequest { user_id: user_id.clone() })).await;
    assert_eq!(got.expect("oneself").into_inner().user.as_ref(), Some(&ada));
    let renamed = User { user_id, display_name: "Countess".into(), ..Default::default() };
    let request = UpdateUserRequest { user: Some(renamed), update_mask: None };
    let renamed =
        fixture.users.clone().update_user(fixture.kit.customer(me, request)).await.expect("oneself").into_inner();
    assert_eq!(renamed.user.map(|user| user.user_id), Some(ada.user_id));
}
