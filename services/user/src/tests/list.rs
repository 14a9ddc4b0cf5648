use contracts::souk::user::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason};
use tonic::{Code, Status};

use super::Fixture;

impl Fixture {
    async fn listed(&self, request: ListUsersRequest) -> Result<ListUsersResponse, Status> {
        Ok(self.users.clone().list_users(self.kit.operator(request)).await?.into_inner())
    }

    /// Who is on a list.
    async fn emails(&self, request: ListUsersRequest) -> Vec<String> {
        let users = self.listed(request).await.expect("listed").users.into_iter();
        users.map(|user| user.email).collect()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn accounts_are_listed_newest_first_by_role_and_state(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for at in 1..=3 {
        fixture.register(&format!("k{at}"), &format!("user{at}@example.com")).await.expect("registered");
    }
    sqlx::query!("update account set role = 'OPERATOR' where email = 'user2@example.com'")
        .execute(&fixture.service.db)
        .await
        .expect("as the administrator's command does");
    let any = ListUsersRequest::default;
    let first = fixture.listed(ListUsersRequest { page_size: 2, ..any() }).await.expect("a page");
    let rest = ListUsersRequest { page_size: 2, page_token: first.next_page_token, ..any() };
    let rest = fixture.listed(rest).await.expect("a page");
    let emails: Vec<_> = first.users.iter().chain(&rest.users).map(|user| user.email.as_str()).collect();
    assert_eq!(emails, ["user3@example.com", "user2@example.com", "user1@example.com"]);
    assert_eq!(rest.next_page_token, "");

    let user_id = first.users[0].user_id.clone();
    fixture.users.clone().disable_user(fixture.kit.operator(DisableUserRequest { user_id })).await.expect("disabled");
    assert_eq!(fixture.emails(ListUsersRequest { disabled: true, ..any() }).await, ["user3@example.com"]);
    let operators = ListUsersRequest { role: Role::Operator.into(), ..any() };
    assert_eq!(fixture.emails(operators.clone()).await, ["user2@example.com"]);
    assert_eq!(fixture.emails(ListUsersRequest { disabled: true, ..operators }).await, [""; 0]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_list_is_for_operators_and_checks_its_fields(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.kit.customer(CUSTOMER, ListUsersRequest::default());
    let refused = fixture.users.clone().list_users(request).await.expect_err("operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let odd = ListUsersRequest { role: 99, page_size: -1, ..Default::default() };
    assert_eq!(fields(&fixture.listed(odd).await.expect_err("both are wrong")), ["role", "page_size"]);
    let forged = ListUsersRequest { page_token: "forged".into(), ..Default::default() };
    assert_eq!(reason(&fixture.listed(forged).await.expect_err("forged")), "PAGE_TOKEN_INVALID@souk.user");
}
