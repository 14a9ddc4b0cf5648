use contracts::souk::order::v1::*;
use sqlx::{AssertSqlSafe, PgPool};
use testkit::{CUSTOMER, authorized, captured, fields, one_session, reason, rows_read, stock_reserved};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;

impl Fixture {
    pub(super) async fn pick_list(&self, page_size: i32, page_token: &str) -> Result<GetPickListResponse, Status> {
        let request = GetPickListRequest { page_size, page_token: page_token.into() };
        Ok(self.client.clone().get_pick_list(self.kit.operator(request)).await?.into_inner())
    }

    /// Adds 2,000 orders like this one but for what is named, and has Postgres count them.
    pub(super) async fn copies(&self, order: Uuid, different: &str) {
        let copies = format!(
            r#"insert into "order" select (jsonb_populate_record(it, jsonb_build_object('order_id', gen_random_uuid(), {different}))).*
               from "order" as it, generate_series(1, 2000) where order_id = '{order}'"#
        );
        for sql in [&copies, r#"analyze "order""#] {
            sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&self.service.db).await.expect("done");
        }
    }

    /// An order that is paid.
    async fn paid(&self) -> Uuid {
        let order = self.place().await;
        for record in [stock_reserved(order), authorized(order), captured(order, 2_500)] {
            self.kit.deliver(record).await;
        }
        order
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_paid_and_not_completely_fulfilled_is_listed_oldest_first(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.one_of_each().await;
    let (first, partly, last) = (fixture.paid().await, fixture.paid().await, fixture.paid().await);
    let product_id = fixture.order(partly).await.items[0].product_id.clone();
    fixture.fulfill_items(partly, "f1", &[(product_id.as_str(), 1)]).await.expect("a part");

    let (mut found, mut token) = (vec![], String::new());
    loop {
        let page = fixture.pick_list(1, &token).await.expect("a page");
        assert_eq!(page.orders.len(), 1, "each page has one");
        found.extend(page.orders);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let ids: Vec<_> = found.iter().map(|order| order.order_id.clone()).collect();
    assert_eq!(ids, [first, partly, last].map(|id| id.to_string()));
    let line = &found[1].items[0];
    assert_eq!((line.quantity, line.fulfilled_quantity), (2, 1), "what is left to pick");
    assert_eq!(found[1].shipment.clone().expect("the newest").tracking_number, "f1");

    fixture.fulfill(partly, "f2").await.expect("the rest");
    let left = fixture.pick_list(0, "").await.expect("all").orders;
    assert_eq!(left.len(), 2, "a fulfilled order is not there any more");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn it_is_for_operators_and_checks_its_fields(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.kit.customer(CUSTOMER, GetPickListRequest::default());
    let refused = fixture.client.clone().get_pick_list(request).await.expect_err("operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(fields(&fixture.pick_list(-1, "").await.expect_err("negative")), ["page_size"]);
    let forged = fixture.pick_list(0, "forged").await.expect_err("no token of ours");
    assert_eq!(reason(&forged), "PAGE_TOKEN_INVALID@souk.order");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_refunded_before_it_was_sent_is_not_read_each_time(db: PgPool) {
    let fixture = Fixture::open(one_session(&db).await).await;
    let paid = fixture.paid().await;
    fixture.copies(paid, "'refunded_minor', total_minor").await;
    let before = rows_read(&fixture.service.db, "order").await;
    let orders = fixture.pick_list(0, "").await.expect("a page").orders;
    assert_eq!(orders.iter().map(|order| &order.order_id).collect::<Vec<_>>(), [&paid.to_string()]);
    let rows = rows_read(&fixture.service.db, "order").await - before;
    assert!(rows < 100, "it has read {rows} rows");
}
