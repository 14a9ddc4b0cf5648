use chassis::Next;
use sqlx::PgPool;
use testkit::{one_session, rows_read};

use super::Fixture;
use crate::retired;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn two_replicas_delete_all_rows_of_a_retired_projection(db: PgPool) {
    let (one, other) = (Fixture::open(db.clone()).await, Fixture::open(db.clone()).await);
    for sql in [
        "insert into projection (state, created_at) values ('RETIRED', now())",
        "insert into counted_order (projection_id, order_id, version, placed_at, stages, lines)
         select 2, gen_random_uuid(), 1, now(), 1, '' from generate_series(1, 5000)",
    ] {
        sqlx::query(sql).execute(&db).await.expect("inserted");
    }
    let delete_all = async |fixture: &Fixture| {
        while retired::delete(fixture.service.clone()).await.expect("deleted") == Next::AtOnce {}
    };
    tokio::join!(delete_all(&one), delete_all(&other));
    let left = "select count(*) from counted_order";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&db).await.expect("read"), 0);
    let left = "select count(*) from projection where state = 'RETIRED'";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&db).await.expect("read"), 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn to_delete_a_projection_the_rows_of_others_are_not_read(db: PgPool) {
    let fixture = Fixture::open(one_session(&db).await).await;
    for sql in [
        "insert into projection (state, created_at) values ('RETIRED', now())",
        "insert into counted_order (projection_id, order_id, version, placed_at, stages, lines)
         select 1, gen_random_uuid(), 1, now(), 1, '' from generate_series(1, 50000)",
        "insert into funnel (projection_id, quarter, stage, reason, orders)
         select 2, now() + number * interval '15 minutes', 'PLACED', '', 1 from generate_series(1, 20000) as number",
        "analyze",
    ] {
        sqlx::query(sql).execute(&fixture.service.db).await.expect("prepared");
    }
    let before = rows_read(&fixture.service.db, "counted_order").await;
    while retired::delete(fixture.service.clone()).await.expect("deleted") == Next::AtOnce {}
    let rows = rows_read(&fixture.service.db, "counted_order").await - before;
    assert!(rows < 1_000, "it has read {rows} rows");
}
