use contracts::souk::user::v1::*;
use sqlx::PgPool;
use testkit::{Log, OPERATOR, fields, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;
use super::register::registration;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_update_that_changes_nothing_keeps_the_etag(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    assert_eq!(rename(&fixture, &ada, ada.clone(), &["display_name"]).await.expect("the same"), ada);
    let forged = User { role: Role::Operator.into(), ..ada.clone() };
    assert_eq!(rename(&fixture, &ada, forged, &[]).await.expect("what only we say is not taken over"), ada);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_operator_renames_anybody_and_me_is_oneself(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let wanted = User { display_name: "Countess".into(), etag: String::new(), ..ada.clone() };
    let request = UpdateUserRequest { user: Some(wanted), update_mask: None };
    let log = Log::keep();
    let renamed =
        fixture.users.clone().update_user(fixture.kit.operator(request)).await.expect("anybody").into_inner().user;
    assert_eq!(renamed.map(|user| user.display_name), Some("Countess".to_owned()));
    let me = User { user_id: "me".into(), display_name: "Ada".into(), ..Default::default() };
    assert_eq!(rename(&fixture, &ada, me, &[]).await.expect("oneself").user_id, ada.user_id);
    let lines = log.find("an account was changed");
    let [line] = lines.as_slice() else { panic!("the change of the operator is logged, and no other: {lines:?}") };
    assert!(line.contains(&format!("actor=\"operator:{OPERATOR}\"")) && line.contains(&ada.user_id), "{line}");
    assert!(log.find("Countess").is_empty() && log.find("ada@example.com").is_empty(), "nothing personal");
}

async fn rename(fixture: &Fixture, by: &User, user: User, paths: &[&str]) -> Result<User, Status> {
    let by = Uuid::parse_str(&by.user_id).expect("a UUID");
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = UpdateUserRequest { user: Some(user), update_mask: Some(prost_types::FieldMask { paths }) };
    let response = fixture.users.clone().update_user(fixture.kit.customer(by, request)).await?;
    Ok(response.into_inner().user.expect("a success has the user"))
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_name_changes_and_the_etag_with_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let wanted = User { display_name: "Ada L.".into(), ..ada.clone() };
    let renamed = rename(&fixture, &ada, wanted.clone(), &[]).await.expect("renamed");
    assert_eq!(renamed.display_name, "Ada L.");
    assert_ne!(renamed.etag, ada.etag);
    let stale = rename(&fixture, &ada, wanted, &["display_name"]).await.expect_err("the etag is old");
    assert_eq!((stale.code(), reason(&stale)), (Code::Aborted, "ETAG_MISMATCH@souk.user".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_may_not_change_is_refused_by_name(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let bob = fixture.register("k2", "bob@example.com").await.expect("registered");
    let mask = rename(&fixture, &ada, ada.clone(), &["email"]).await.expect_err("immutable");
    assert_eq!((reason(&mask), fields(&mask)), ("UPDATE_MASK_INVALID@souk.user".into(), vec!["update_mask".into()]));
    let other = rename(&fixture, &bob, ada.clone(), &[]).await.expect_err("not his");
    assert_eq!(reason(&other), "USER_NOT_FOUND@souk.user");
    let empty = rename(&fixture, &ada, User { display_name: String::new(), ..ada.clone() }, &["display_name"]).await;
    assert_eq!(fields(&empty.expect_err("empty")), ["user.display_name"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn another_address_is_refused_by_name_and_the_same_one_is_fine(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let with = |email: &str| User { email: email.into(), ..ada.clone() };
    for paths in [&[][..], &["*"]] {
        let refused = rename(&fixture, &ada, with("eve@example.com"), paths).await.expect_err("immutable");
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["user.email".to_owned()]));
        assert_eq!(rename(&fixture, &ada, with("ADA@example.com"), paths).await.expect("the same"), ada);
    }
    let named = rename(&fixture, &ada, with("eve@example.com"), &["display_name"]).await;
    assert_eq!(named.expect("what the mask does not name is not looked at"), ada);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_star_replaces_everything_that_may_change(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let wanted = User { user_id: "me".into(), display_name: "Countess".into(), ..Default::default() };
    assert_eq!(rename(&fixture, &ada, wanted.clone(), &["*"]).await.expect("renamed").display_name, "Countess");
    let nameless = rename(&fixture, &ada, User { display_name: String::new(), ..wanted.clone() }, &["*"]).await;
    assert_eq!(fields(&nameless.expect_err("a name is required")), ["user.display_name"]);
    let both = rename(&fixture, &ada, wanted, &["*", "display_name"]).await.expect_err("all, and one of them");
    assert_eq!(reason(&both), "UPDATE_MASK_INVALID@souk.user");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_phone_number_is_set_kept_and_removed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    assert_eq!(ada.phone, "");
    let with = |phone: &str| User { phone: phone.into(), etag: String::new(), ..ada.clone() };
    let set = rename(&fixture, &ada, with("+4930123456"), &["phone"]).await.expect("set");
    assert_eq!((set.phone.as_str(), &set.display_name), ("+4930123456", &ada.display_name));
    let renamed = User { display_name: "Ada L.".into(), ..with("") };
    let kept = rename(&fixture, &ada, renamed, &[]).await.expect("what is absent stays");
    assert_eq!((kept.phone.as_str(), kept.display_name.as_str()), ("+4930123456", "Ada L."));
    let removed = rename(&fixture, &ada, with(""), &["phone"]).await.expect("removed");
    assert_eq!(removed.phone, "");
    for wrong in ["030123456", "+0301234567", "+49 30 123456", "+49301234567890123", "+12345"] {
        let refused = rename(&fixture, &ada, with(wrong), &["phone"]).await.expect_err("not E.164");
        assert_eq!(
            (refused.code(), fields(&refused)),
            (Code::InvalidArgument, vec!["user.phone".to_owned()]),
            "{wrong}"
        );
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_account_has_a_language_from_its_registration_on(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let german = RegisterUserRequest { language_code: "de".into(), ..registration("k1", "ada@example.com") };
    let ada = fixture.users.clone().register_user(german).await.expect("registered").into_inner().user.expect("a user");
    assert_eq!(ada.language_code, "de");
    let with = |code: &str| User { language_code: code.into(), etag: String::new(), ..ada.clone() };
    let english = rename(&fixture, &ada, with("en"), &["language_code"]).await.expect("set");
    assert_eq!(english.language_code, "en");
    let removed = rename(&fixture, &ada, with(""), &["language_code"]).await.expect("that of the shop");
    assert_eq!(removed.language_code, "");
    let refused = rename(&fixture, &ada, with("fr"), &["language_code"]).await.expect_err("there are no such texts");
    assert_eq!(fields(&refused), ["user.language_code"]);
}
