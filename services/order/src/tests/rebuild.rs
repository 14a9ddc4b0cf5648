use chassis::Unexpected;
use chassis::check::Range;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::PgPool;
use testkit::{authorized, captured, stock_reserved};

use super::Fixture;
use crate::Difference;

/// All orders built again: how many there are, and which differ.
pub(super) async fn compare(db: &PgPool) -> Result<(u64, Vec<Difference>), Unexpected> {
    let mut differences = Vec::new();
    let count = crate::rebuild::compare(db, Range::ALL, |difference| differences.push(difference)).await?;
    Ok((count, differences))
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_are_what_their_events_say_and_a_forged_one_is_found(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, other) = (fixture.place().await, fixture.place().await);
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.kit.deliver(authorized(order)).await;
    fixture.kit.deliver(captured(order, 2_500)).await;
    fixture.cancel(other, "c1").await.expect("cancelled");
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (2, vec![]));

    sqlx::query!(r#"update "order" set state = 'CONFIRMED' where order_id = $1"#, other)
        .execute(&fixture.service.db)
        .await
        .expect("forged");
    let (count, differences) = compare(&fixture.service.db).await.expect("compared");
    assert_eq!((count, differences.len(), differences[0].order_id), (2, 1, other));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_kind_of_forgery_is_found(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let orders = fixture.one_of_each().await;
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (8, vec![]), "whatever state they are in");
    let mut forged = vec![];
    for (state, forgery) in [
        (OrderState::Pending, "update order_line set quantity = quantity + 1 where order_id = $1"),
        (OrderState::Reserved, "update order_event set version = version + 1 where order_id = $1 and version = 2"),
        (OrderState::Confirmed, r#"update "order" set total_minor = total_minor + 1 where order_id = $1"#),
        (OrderState::Rejected, "delete from order_event where order_id = $1"),
    ] {
        let (_, order) = orders.iter().find(|(it, _)| *it == state).expect("one of each");
        sqlx::query(forgery).bind(order).execute(&fixture.service.db).await.expect("forged");
        forged.push(*order);
    }
    let (count, mut found) = compare(&fixture.service.db).await.expect("compared");
    forged.sort_unstable();
    found.sort_unstable_by_key(|difference| difference.order_id);
    assert_eq!((count, found.iter().map(|it| it.order_id).collect::<Vec<_>>()), (8, forged), "{found:?}");
}

/// The table refuses such a row, but the row that was built is reported.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn events_that_no_row_could_follow_are_reported(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (overpaid, twice) = (fixture.place().await, fixture.place().await);
    fixture.kit.deliver(stock_reserved(overpaid)).await;
    fixture.kit.deliver(authorized(overpaid)).await;
    for (order, kind, event) in [
        (
            overpaid,
            "OrderRefunded",
            Event::OrderRefunded(OrderRefunded { amount: Some(Money::new("EUR", 2_501)), ..Default::default() }),
        ),
        (twice, "OrderPlaced", Event::OrderPlaced(OrderPlaced::default())),
    ] {
        let payload = OrderEvent { order_id: order.to_string(), event: Some(event), ..Default::default() };
        sqlx::query(
            "insert into order_event (order_id, version, event_id, type, payload, actor, occurred_at)
             select $1, max(version) + 1, gen_random_uuid(), 'souk.order.v1.' || $2, $3, 'test', now()
             from order_event where order_id = $1",
        )
        .bind(order)
        .bind(kind)
        .bind(payload.encode_to_vec())
        .execute(&fixture.service.db)
        .await
        .expect("forged");
    }
    let (count, differences) = compare(&fixture.service.db).await.expect("compared");
    assert_eq!((count, differences.len()), (2, 2), "{differences:?}");
    let why = |order| differences.iter().find(|it| it.order_id == order).expect("a difference").why.as_str();
    assert!(why(overpaid).contains("refunded_minor is 0, the events say 2501"), "{}", why(overpaid));
    assert_eq!(why(twice), "it was placed twice");
}

/// Names mean something else where orders are built again. No other session sees anything of it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_live_rows_are_never_touched(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.one_of_each().await;
    let rows = async || {
        let sql = r#"select xmin::text || '"order"'::regclass::oid || to_jsonb(it) from "order" as it
                     union all select xmin::text || 'order_line'::regclass::oid || to_jsonb(it) from order_line as it order by 1"#;
        sqlx::query_scalar::<_, String>(sql).fetch_all(&fixture.service.db).await.expect("rows")
    };
    let before = rows().await;
    compare(&fixture.service.db).await.expect("compared");
    assert_eq!(rows().await, before);
    fixture.place().await;
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (9, vec![]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_tables_defend_themselves(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    for (statement, constraint) in [
        (r#"update "order" set state = 'LOST' where order_id = $1"#, "order_state"),
        (r#"update "order" set version = 0 where order_id = $1"#, "order_version"),
        (r#"update "order" set total_minor = 0 where order_id = $1"#, "order_total"),
        (r#"update "order" set total_minor = 100000000 where order_id = $1"#, "order_total"),
        (r#"update "order" set refunded_minor = total_minor + 1 where order_id = $1"#, "order_refunded"),
        (r#"update "order" set state = 'FULFILLED' where order_id = $1"#, "order_fulfilled_when_paid"),
        (r#"update "order" set payment_method = '4242424242424242' where order_id = $1"#, "order_payment_method"),
        ("update order_line set quantity = 0 where order_id = $1", "order_line_quantity"),
        ("update order_line set quantity = 1000 where order_id = $1", "order_line_quantity"),
        ("update order_line set price_minor = 0 where order_id = $1", "order_line_price"),
        (r#"update "order" set shipments = 1 where order_id = $1"#, "order_shipments"),
        ("update order_line set fulfilled = quantity + 1 where order_id = $1", "order_line_fulfilled"),
        ("update order_line set returned = 1 where order_id = $1", "order_line_returned"),
        ("insert into order_shipment values ($1, 0, '', '', array[$1], array[1], now())", "order_shipment_counts"),
        ("insert into order_shipment values ($1, 1, '', '', array[$1], '{}', now())", "order_shipment_items"),
        ("update order_event set version = 0 where order_id = $1", "order_event_counts"),
        ("insert into order_event select * from order_event where order_id = $1", "order_event_version"),
    ] {
        let refused = sqlx::query(statement).bind(order).execute(&fixture.service.db).await.expect_err(statement);
        assert_eq!(refused.as_database_error().and_then(|it| it.constraint()), Some(constraint), "{statement}");
    }
}
