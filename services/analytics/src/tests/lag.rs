//! How far the figures are behind.

use chassis::event::{Handler, PartitionLag};
use sqlx::PgPool;

use super::{Fixture, MUG, Story};
use crate::lag;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn lag_is_the_sum_over_all_replicas_and_the_age_of_what_is_counted(db: PgPool) {
    let (one, other) = (Fixture::open(db.clone()).await, Fixture::open(db).await);
    let before = one.status().await;
    assert_eq!((before.lag_events, before.lag_seconds, before.measure_time), (0, 0, None));
    assert_eq!(before.live.map(|live| live.projection_id), Some(1));

    let now = one.service.clock.now();
    let mut story = Story::placed(3, "2026-01-01T00:00:00Z", "EUR", &[(MUG, 1, 100)]);
    story.records[0].occurred_at = now - time::Duration::seconds(90);
    one.kit.deliver_together(&story.records).await;
    one.service.observe_lag(&[PartitionLag { partition: 3, waiting: 5 }]);
    other.service.observe_lag(&[PartitionLag { partition: 4, waiting: 2 }, PartitionLag { partition: 5, waiting: 0 }]);
    for fixture in [&one, &other] {
        lag::record(fixture.service.clone()).await.expect("recorded");
    }
    for fixture in [&one, &other] {
        let status = fixture.status().await;
        assert_eq!((status.lag_events, status.lag_seconds), (7, 90));
        assert!(status.measure_time.is_some());
    }

    // Nothing waits: then the age of the newest event says nothing.
    one.service.observe_lag(&[PartitionLag { partition: 3, waiting: 0 }]);
    other.service.observe_lag(&[PartitionLag { partition: 4, waiting: 0 }]);
    for fixture in [&one, &other] {
        lag::record(fixture.service.clone()).await.expect("recorded");
    }
    let status = other.status().await;
    assert_eq!((status.lag_events, status.lag_seconds), (0, 0));
}
