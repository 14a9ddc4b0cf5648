//! The list that every role polls.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use chassis::rpc::token::Revoked;
use http_body_util::BodyExt;
use sqlx::PgPool;
use tower::ServiceExt;
use uuid::Uuid;

use super::Fixture;
use super::register::PASSWORD;
use crate::revocation::{LISTED, end_sessions, page};

/// The status, the ETag and the list, if there is one.
async fn fetch(fixture: &Fixture, known: &str) -> (StatusCode, String, Option<Revoked>) {
    let request = Request::get("/internal/revoked").header(header::IF_NONE_MATCH, known).body(Body::empty());
    let response = page(&fixture.service).oneshot(request.expect("a request")).await.expect("a page");
    let etag = response.headers().get(header::ETAG).map(|etag| etag.to_str().expect("text").to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, etag.unwrap_or_default(), serde_json::from_slice(&body).ok())
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_session_is_listed_until_its_access_tokens_have_expired(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (status, empty, list) = fetch(&fixture, "").await;
    assert_eq!((status, list), (StatusCode::OK, Some(Revoked::default())));
    let session = fixture.signed_in().await.session.expect("a session").session_id.parse().expect("a UUID");
    assert_eq!(fetch(&fixture, &empty).await.0, StatusCode::NOT_MODIFIED, "signing in revokes nothing");

    let mut db = fixture.service.db.acquire().await.expect("a connection");
    let ended = end_sessions(&mut db, &[crate::session::SessionId::new(session)], fixture.service.clock.now()).await;
    assert_eq!(ended.expect("ended"), 1);
    let (status, etag, list) = fetch(&fixture, &empty).await;
    assert_eq!((status, list), (StatusCode::OK, Some(Revoked { session_ids: vec![session] })));
    fixture.wait(LISTED - Duration::from_millis(1));
    assert_eq!(fetch(&fixture, &etag).await.0, StatusCode::NOT_MODIFIED);
    fixture.wait(Duration::from_millis(1));
    assert_eq!(fetch(&fixture, &etag).await, (StatusCode::OK, empty, Some(Revoked::default())));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ten_thousand_sessions_are_all_listed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let ended: i64 = sqlx::query_scalar(
        "with ended as (insert into revocation select gen_random_uuid(), $1 from generate_series(1, 10000) returning 1)
         select count(*) from ended",
    )
    .bind(fixture.service.clock.now())
    .fetch_one(&fixture.service.db)
    .await
    .expect("inserted");
    let (_, _, list) = fetch(&fixture, "").await;
    let listed = list.expect("a list").session_ids;
    let distinct: std::collections::HashSet<Uuid> = listed.iter().copied().collect();
    assert_eq!((distinct.len() as i64, ended), (ended, 10_000));

    let verifier = &fixture.kit.context.verifier;
    let token = fixture.kit.token(Uuid::from_u128(7), listed[9_999]);
    assert!(verifier.verify(&token).is_ok());
    verifier.set_revoked(Revoked { session_ids: listed });
    let refused = verifier.verify(&token).expect_err("it is in the list");
    assert!(matches!(refused, chassis::Error::TokenRevoked), "{refused:?}");
}

/// Roles keep their last list then.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_the_database_there_is_no_list(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.service.db.close().await;
    let (status, _, list) = fetch(&fixture, "").await;
    assert_eq!((status, list), (StatusCode::SERVICE_UNAVAILABLE, None));
}

/// An access token that was verified before, and one that was not; public methods need none.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_revoked_token_is_refused_by_every_method_that_needs_one(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let user: Uuid =
        fixture.register("k1", "ada@example.com").await.expect("registered").user_id.parse().expect("a UUID");
    let session = Uuid::now_v7();
    let me = || contracts::souk::user::v1::GetUserRequest { user_id: "me".into() };
    fixture.users.clone().get_user(fixture.kit.session(user, session, me())).await.expect("it is valid");
    fixture.kit.context.verifier.set_revoked(Revoked { session_ids: vec![session] });
    let refused = fixture.users.clone().get_user(fixture.kit.session(user, session, me())).await.expect_err("revoked");
    assert_eq!(
        (refused.code(), testkit::reason(&refused)),
        (tonic::Code::Unauthenticated, "TOKEN_REVOKED@souk.user".into())
    );
    assert!(
        refused
            .metadata()
            .get("www-authenticate")
            .is_some_and(|it| it.to_str().is_ok_and(|it| it.contains("invalid_token")))
    );
    fixture.users.clone().get_user(fixture.kit.customer(user, me())).await.expect("another session of the same user");
    fixture.sessions.clone().create_session(super::session::login("ada@example.com", PASSWORD)).await.expect("public");
}
