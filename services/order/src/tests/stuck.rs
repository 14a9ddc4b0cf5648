use std::time::Duration;

use sqlx::PgPool;
use testkit::{authorized, captured, stock_reserved};

use super::Fixture;
use crate::expire::expire_due;
use crate::stuck::count_stuck;

/// As Prometheus reads them: those that should have settled, and those that should be paid.
async fn stuck(fixture: &Fixture) -> [String; 2] {
    count_stuck(fixture.service.clone()).await.expect("counted");
    let page = chassis::boot::metrics::render();
    ["unsettled", "unpaid"].map(|of| {
        let name = format!("souk_orders_stuck{{problem=\"{of}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).expect("the gauge is there").to_owned()
    })
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn orders_that_should_be_further_are_counted_until_they_are(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (_unsettled, unpaid) = (fixture.place().await, fixture.place().await);
    fixture.kit.deliver(stock_reserved(unpaid)).await;
    fixture.kit.deliver(authorized(unpaid)).await;
    assert_eq!(stuck(&fixture).await, ["0", "0"]);
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    assert_eq!(stuck(&fixture).await, ["0", "1"]);
    fixture.kit.context.clock.advance(Duration::from_secs(900));
    assert_eq!(stuck(&fixture).await, ["1", "1"]);
    fixture.kit.deliver(captured(unpaid, 2_500)).await;
    expire_due(fixture.service.clone()).await.expect("one is due");
    assert_eq!(stuck(&fixture).await, ["0", "0"]);
}
