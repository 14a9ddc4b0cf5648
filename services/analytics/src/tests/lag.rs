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
        assert_eq!((status.lag_events, status.lag_seconds), (7, 0), "they wait only now");
        assert!(status.measure_time.is_some());
    }
    let an_hour = "update partition_lag set behind_since = behind_since - interval '1 hour'";
    sqlx::query(an_hour).execute(&one.service.db).await.expect("an hour passes");
    one.service.observe_lag(&[PartitionLag { partition: 3, waiting: 5 }]);
    lag::record(one.service.clone()).await.expect("recorded");
    assert_eq!(one.status().await.lag_seconds, 3_600, "no event of partition 4 was ever handled");
    other.service.observe_lag(&[PartitionLag { partition: 4, waiting: 0 }]);
    lag::record(other.service.clone()).await.expect("recorded");
    assert_eq!(one.status().await.lag_seconds, 90, "one of partition 3 was, that happened then");

    // Nothing waits: then the age of the newest event says nothing, nor does it when the next one comes.
    one.service.observe_lag(&[PartitionLag { partition: 3, waiting: 0 }]);
    other.service.observe_lag(&[PartitionLag { partition: 4, waiting: 0 }]);
    for fixture in [&one, &other] {
        lag::record(fixture.service.clone()).await.expect("recorded");
    }
    let status = other.status().await;
    assert_eq!((status.lag_events, status.lag_seconds), (0, 0));
    one.service.observe_lag(&[PartitionLag { partition: 3, waiting: 1 }]);
    lag::record(one.service.clone()).await.expect("recorded");
    let status = other.status().await;
    assert_eq!((status.lag_events, status.lag_seconds), (1, 0));
}
