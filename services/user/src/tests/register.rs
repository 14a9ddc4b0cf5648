use contracts::souk::user::v1::*;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::Code;
use uuid::Uuid;

use super::{Desk, PASSWORD, registration};

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_same_key_registers_once_whatever_the_password(db: PgPool) {
    let desk = Desk::open(db).await;
    let first = desk.register("k1", "Ada@Example.com").await.expect("registered");
    assert_eq!(first.email, "ada@example.com");
    let again =
        RegisterUserRequest { password: "another long password".into(), ..registration("k1", "ada@example.com") };
    let again = desk.users().register_user(again).await.expect("replayed").into_inner().user;
    assert_eq!(again, Some(first));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_belongs_to_one_body_and_an_address_to_one_account(db: PgPool) {
    let desk = Desk::open(db).await;
    desk.register("k1", "ada@example.com").await.expect("registered");
    let reused = desk.register("k1", "bob@example.com").await.expect_err("another body");
    assert_eq!((reused.code(), reason(&reused)), (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED@souk.user".into()));
    let taken = desk.register("k2", "ADA@example.com").await.expect_err("taken");
    assert_eq!((taken.code(), reason(&taken)), (Code::AlreadyExists, "EMAIL_TAKEN@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_is_required_and_may_come_as_a_header(db: PgPool) {
    let desk = Desk::open(db).await;
    let none = desk.register("", "ada@example.com").await.expect_err("no key");
    assert_eq!(
        (reason(&none), fields(&none)),
        ("IDEMPOTENCY_KEY_REQUIRED@souk.user".into(), vec!["request_id".into()])
    );

    let mut request = tonic::Request::new(registration("", "ada@example.com"));
    request.metadata_mut().insert("idempotency-key", "h1".parse().expect("visible"));
    let by_header = desk.users().register_user(request).await.expect("registered").into_inner().user;
    assert_eq!(by_header, desk.register("h1", "ada@example.com").await.ok(), "the same key, the same request");

    let mut request = tonic::Request::new(registration("h2", "ada@example.com"));
    request.metadata_mut().insert("idempotency-key", "h1".parse().expect("visible"));
    let both = desk.users().register_user(request).await.expect_err("two keys");
    assert_eq!(reason(&both), "IDEMPOTENCY_KEYS_DIFFER@souk.user");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_bad_fields_are_named_at_once(db: PgPool) {
    let desk = Desk::open(db).await;
    let bad = RegisterUserRequest { email: "ada".into(), password: "short".into(), ..registration("k", "") };
    let bad = RegisterUserRequest { email: "ada".into(), display_name: String::new(), ..bad };
    let refused = desk.users().register_user(bad).await.expect_err("three are wrong");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["email", "password", "display_name"]);
    assert!(!refused.message().contains("short"), "a password is not repeated");
    let nul = RegisterUserRequest { display_name: "A\0a".into(), ..registration("k", "ada@example.com") };
    assert_eq!(fields(&desk.users().register_user(nul).await.expect_err("a NUL")), ["display_name"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_registrations_at_once_one_wins(db: PgPool) {
    let desk = Desk::open(db).await;
    let (a, b) = tokio::join!(desk.register("k1", "ada@example.com"), desk.register("k2", "ada@example.com"));
    assert_eq!([&a, &b].iter().filter(|it| it.is_ok()).count(), 1);
    let loser = a.err().or(b.err()).expect("one lost");
    assert_eq!(reason(&loser), "EMAIL_TAKEN@souk.user");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn people_see_themselves_and_operators_see_anybody(db: PgPool) {
    let desk = Desk::open(db).await;
    let ada = desk.register("k1", "ada@example.com").await.expect("registered");
    let bob = desk.register("k2", "bob@example.com").await.expect("registered");
    let id = |user: &User| Uuid::parse_str(&user.user_id).expect("a UUID");
    let ask = |user_id: &str| GetUserRequest { user_id: user_id.to_owned() };

    let me = desk.users().get_user(desk.kit.customer(id(&ada), ask("me"))).await.expect("me").into_inner();
    assert_eq!(me.user, Some(ada.clone()));
    let other = desk.users().get_user(desk.kit.customer(id(&ada), ask(&bob.user_id))).await.expect_err("not hers");
    assert_eq!((other.code(), reason(&other)), (Code::NotFound, "USER_NOT_FOUND@souk.user".into()));
    let any = desk.users().get_user(desk.kit.operator(ask(&bob.user_id))).await.expect("any").into_inner();
    assert_eq!(any.user, Some(bob));
    let nobody = desk.users().get_user(ask("me")).await.expect_err("no token");
    assert_eq!((nobody.code(), reason(&nobody)), (Code::Unauthenticated, "TOKEN_MISSING@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_password_is_stored_as_it_is(db: PgPool) {
    let desk = Desk::open(db).await;
    desk.register("k1", "ada@example.com").await.expect("registered");
    let hash = sqlx::query_scalar!("select password_hash from account").fetch_one(&desk.db).await.expect("one row");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let answers = sqlx::query_scalar!("select response from idempotency").fetch_all(&desk.db).await.expect("rows");
    let leaks = |bytes: &Vec<u8>| bytes.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes());
    assert!(!answers.iter().any(leaks));
}
