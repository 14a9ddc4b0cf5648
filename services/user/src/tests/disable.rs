use contracts::souk::user::v1::{DisableUserRequest, EnableUserRequest, GetUserRequest};
use sqlx::PgPool;
use testkit::reason;
use tonic::Code;
use uuid::Uuid;

use super::Fixture;
use super::register::PASSWORD;
use super::session::login;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_disabled_account_has_no_sessions_until_it_is_enabled(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let session = fixture.signed_in().await;
    let user_id = fixture.user_id().await.to_string();
    let disable = || fixture.kit.operator(DisableUserRequest { user_id: user_id.clone() });
    let user =
        fixture.users.clone().disable_user(disable()).await.expect("disabled").into_inner().user.expect("a user");
    assert!(user.disable_time.is_some());
    assert_eq!(fixture.count().await, (0, 1));
    fixture.refresh(&session.refresh_token).await.expect_err("its session has ended");

    let refused =
        fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect_err("disabled");
    assert_eq!((refused.code(), reason(&refused)), (Code::PermissionDenied, "USER_DISABLED@souk.user".into()));
    let wrong =
        fixture.sessions.clone().create_session(login("ada@example.com", "not my password")).await.expect_err("wrong");
    assert_eq!(reason(&wrong), "CREDENTIALS_INVALID@souk.user", "who does not know the password does not learn it");
    let again = fixture.users.clone().disable_user(disable()).await.expect("it is disabled").into_inner().user;
    assert_eq!(again, Some(user), "nothing changes");

    let enable = fixture.kit.operator(EnableUserRequest { user_id: user_id.clone() });
    let user = fixture.users.clone().enable_user(enable).await.expect("enabled").into_inner().user.expect("a user");
    assert_eq!(user.disable_time, None);
    fixture.sign_in().await;
    let get = fixture.kit.operator(GetUserRequest { user_id });
    assert_eq!(fixture.users.clone().get_user(get).await.expect("there").into_inner().user, Some(user));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_operators_disable_and_enable(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let user_id = fixture.user_id().await;
    let disable = fixture.kit.customer(user_id, DisableUserRequest { user_id: "me".into() });
    let enable = fixture.kit.customer(user_id, EnableUserRequest { user_id: "me".into() });
    let refused = fixture.users.clone().disable_user(disable).await.expect_err("not for customers");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = fixture.users.clone().enable_user(enable).await.expect_err("not for customers");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let nobody = fixture.kit.operator(DisableUserRequest { user_id: Uuid::now_v7().to_string() });
    let refused = fixture.users.clone().disable_user(nobody).await.expect_err("there is no such user");
    assert_eq!(reason(&refused), "USER_NOT_FOUND@souk.user");
}
