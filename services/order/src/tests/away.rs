use std::time::{Duration, Instant};

use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use tonic::Code;

use super::Fixture;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_breaker_of_a_failing_catalogue_opens_and_closes_again(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let wanted = fixture.wanted("k1");
    fixture.catalogue.fail(u32::MAX);
    for _ in 0..30 {
        let refused = fixture.create(wanted.clone()).await.expect_err("there are no prices");
        assert_eq!(refused.code(), Code::Unavailable);
    }
    assert!(fixture.catalogue.calls() < 20, "it was asked {} times", fixture.catalogue.calls());

    fixture.catalogue.fail(0);
    let begun = Instant::now();
    let order = loop {
        match fixture.create(wanted.clone()).await {
            Ok(order) => break order,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never asked again");
        tokio::task::yield_now().await;
    };
    assert_eq!(order.state(), OrderState::Pending);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_quote_that_got_lost_is_retried_twice(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.catalogue.fail(2);
    fixture.create(fixture.wanted("k1")).await.expect("the third call gets a response");
    assert_eq!(fixture.catalogue.calls(), 3);
    fixture.catalogue.fail(3);
    let refused = fixture.create(fixture.wanted("k2")).await.expect_err("that is enough");
    assert_eq!((refused.code(), fixture.catalogue.calls()), (Code::Unavailable, 6));
}
