//! I4: dead letters.

use sqlx::PgPool;

use super::{all, assert_found};
use crate::dead_letters::check_parked;

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn a_key_that_is_parked(db: PgPool) {
    let letter = "insert into dead_letter (consumer, key, topic, partition, partition_offset, event_id, version, type, payload,
          actor, occurred_at, error, created_at)
        values ('order', gen_random_uuid(), 'souk.payment.v1', 0, 0, gen_random_uuid(), 1, 'souk.payment.v1.PaymentVoided', '',
          'service:payment', now(), 'it cannot be', now())";
    assert_found(&db, vec![], all(&[letter]), 1, async || check_parked(&[&db]).await).await;
}
