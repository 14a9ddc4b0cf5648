use sqlx::PgPool;

use super::Shop;
use crate::compare;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_are_what_their_events_say_and_a_forged_one_is_found(db: PgPool) {
    let shop = Shop::open(db).await;
    let (order, other) = (shop.place().await, shop.place().await);
    shop.hears(shop.stock_reserved(order)).await;
    shop.hears(shop.authorized(order)).await;
    shop.hears(shop.captured(order)).await;
    shop.cancel(other, "c1").await.expect("cancelled");
    assert_eq!(compare(&shop.db).await.expect("compared"), (2, vec![]));

    sqlx::query!(r#"update "order" set state = 'CONFIRMED' where order_id = $1"#, other)
        .execute(&shop.db)
        .await
        .expect("forged");
    let (count, differences) = compare(&shop.db).await.expect("compared");
    assert_eq!((count, differences.len(), differences[0].order_id), (2, 1, other));
}
