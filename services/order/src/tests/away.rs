use std::time::{Duration, Instant};

use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use tonic::Code;

use super::Shop;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_catalogue_that_fails_each_time_is_left_alone_and_asked_again_later(db: PgPool) {
    let shop = Shop::open(db).await;
    let wanted = shop.wanted("k1");
    shop.catalogue.fail(u32::MAX);
    for _ in 0..30 {
        let refused = shop.create(wanted.clone()).await.expect_err("nobody knows a price");
        assert_eq!(refused.code(), Code::Unavailable);
    }
    assert!(shop.catalogue.calls() < 20, "it was asked {} times", shop.catalogue.calls());

    shop.catalogue.fail(0);
    let begun = Instant::now();
    let order = loop {
        match shop.create(wanted.clone()).await {
            Ok(order) => break order,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never asked again");
        tokio::task::yield_now().await;
    };
    assert_eq!(order.state(), OrderState::Pending);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_replica_of_the_catalogue_that_leaves_in_the_middle_is_not_noticed(db: PgPool) {
    let shop = Shop::open(db).await;
    shop.catalogue.fail(2);
    shop.create(shop.wanted("k1")).await.expect("another one is asked");
    assert_eq!(shop.catalogue.calls(), 3);
    shop.catalogue.fail(3);
    let refused = shop.create(shop.wanted("k2")).await.expect_err("that is enough");
    assert_eq!((refused.code(), shop.catalogue.calls()), (Code::Unavailable, 6));
}
