//! An account is opened once or not at all.

use contracts::souk::user::v1::RegisterUserRequest;
use sqlx::PgPool;
use testkit::try_key;

use super::Fixture;
use super::register::registration;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn registering(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = registration("k1", "ada@example.com");
    let other = RegisterUserRequest { display_name: "Bob".into(), ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let mut users = fixture.users.clone();
        async move { Ok(users.register_user(request).await?.into_inner()) }
    })
    .await;
}
