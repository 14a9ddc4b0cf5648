//! Customers that do not wait for a response do no harm to others.

use std::sync::Arc;
use std::time::Duration;

use contracts::souk::order::v1::{CreateOrderRequest, GetOrderRequest};
use sqlx::PgPool;
use testkit::{CUSTOMER, Log};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;

impl Fixture {
    /// As another customer than the one of this shop, who waits for so long.
    async fn create_within(&self, patience: Duration, request: CreateOrderRequest) -> Result<(), Status> {
        let mut request = self.kit.customer(Uuid::now_v7(), request);
        request.set_timeout(patience);
        self.client.clone().create_order(request).await.map(drop)
    }

    /// Waits for the handlers that run on after their callers have left.
    async fn all_ended(&self) {
        self.kit.context.tasks.close();
        self.kit.context.tasks.wait().await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_customer_that_does_not_wait_for_prices_keeps_no_other_from_ordering(db: PgPool) {
    let fixture = Arc::new(Fixture::open(db).await);
    let check = CreateOrderRequest { validate_only: true, request_id: String::new(), ..fixture.wanted("") };
    // However fast this machine is, the customer leaves before there is a price.
    fixture.catalogue.stall(&check.items[0].product_id);
    for patience in [1, 4, 20].map(Duration::from_millis) {
        let mut spam = JoinSet::new();
        for _ in 0..4 {
            let (fixture, check) = (fixture.clone(), check.clone());
            spam.spawn(async move {
                for _ in 0..15 {
                    let left =
                        fixture.create_within(patience, check.clone()).await.expect_err("there is no time to respond");
                    assert!(matches!(left.code(), Code::DeadlineExceeded | Code::Cancelled), "{left:?}");
                }
            });
        }
        for _ in 0..20 {
            fixture.place().await;
        }
        spam.join_all().await;
        fixture.place().await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_call_without_time_reaches_neither_the_catalogue_nor_the_database(db: PgPool) {
    let (fixture, log) = (Fixture::open(db).await, Log::keep());
    let wanted = fixture.wanted("k1");
    // A query fails from here on, which is logged.
    fixture.service.db.close().await;
    let refused = fixture.create_within(Duration::from_nanos(1), wanted).await.expect_err("there is no time");
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused:?}");
    let mut read = fixture.kit.customer(CUSTOMER, GetOrderRequest { order_id: Uuid::now_v7().to_string() });
    read.set_timeout(Duration::from_nanos(1));
    let refused = fixture.client.clone().get_order(read).await.expect_err("there is no time");
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused:?}");
    fixture.all_ended().await;
    assert_eq!((fixture.catalogue.calls(), log.find("failed unexpectedly")), (0, vec![]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_statement_that_ends_with_the_callers_time_is_no_failure_of_ours(db: PgPool) {
    let (fixture, log) = (Fixture::open(db).await, Log::keep());
    let mut held = fixture.service.db.begin().await.expect("a transaction");
    sqlx::query("lock table order_event in access exclusive mode").execute(&mut *held).await.expect("locked");
    let (wanted, patience) = (fixture.wanted("k1"), Duration::from_millis(300));
    let late = fixture.create_within(patience, wanted).await.expect_err("the table is locked");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    fixture.all_ended().await;
    assert_eq!(log.find("failed unexpectedly"), Vec::<String>::new());
    drop(held);
}
