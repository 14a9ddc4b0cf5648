//! What `souk check` hears from the provider is what our books say.

use std::collections::BTreeMap;
use std::ops::Range;

use sqlx::PgPool;
use uuid::Uuid;

use super::Till;
use crate::check::{Did, Provider, books};
use crate::stripe::Answer;

impl Till {
    fn asked(&self) -> Provider {
        let key = std::env::temp_dir().join(format!("souk-key-{}", Uuid::now_v7()));
        std::fs::write(&key, "sk_test_souk\n").expect("written");
        let provider = Provider::new(&self.provider, &key, 100_000, self.db.clone()).expect("a URL");
        std::fs::remove_file(&key).expect("it is there");
        provider
    }

    /// Intents that nobody confirms, so that there is more than one page.
    async fn create_many(&self, count: u32) {
        for at in 0..count {
            let (key, payment_id) = (format!("k{at}"), format!("p{at}"));
            let created =
                self.service.provider.create(&key, (100, "EUR"), "pm_card_visa", (&payment_id, "nobody")).await;
            assert!(matches!(created, Ok(Answer::Done(_))), "{created:?}");
        }
    }
}

async fn all(provider: &Provider, created: &Range<u64>) -> Vec<Did> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = provider.list(created, after.as_deref()).await.expect("an answer");
        all.extend(page.all);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_provider_lists_what_the_books_say(db: PgPool) {
    let till = Till::open(db).await;
    let (kept, partly, back) =
        (till.captured("pm_card_visa").await, till.captured("pm_card_visa").await, till.captured("pm_card_visa").await);
    till.refund(partly, "k1", Some(700)).await.expect("reserved");
    till.refund(partly, "k2", Some(300)).await.expect("reserved");
    till.cancelled(back).await;
    let voided = till.reserved("pm_card_visa").await;
    till.work().await;
    till.cancelled(voided).await;
    let declined = till.reserved("pm_card_chargeDeclined").await;
    till.work().await;
    let orders = [kept, partly, back, voided, declined];
    till.create_many(100).await;

    let provider = till.asked();
    let told = all(&provider, &(0..u64::MAX)).await;
    assert_eq!(told.len(), 105);
    assert!(told.iter().take(100).all(|did| did.order_id.is_none() && did.authorized == 0), "newest first");
    let told: BTreeMap<_, _> = told.iter().filter_map(|did| Some((did.order_id?, did))).collect();
    let ours = books(&till.db, &orders).await.expect("read");
    for order in orders {
        let (did, ours) = (told[&order], &ours[&order]);
        assert_eq!(ours.intent_id.as_ref(), Some(&did.intent_id));
        let theirs = (did.authorized, did.captured, did.voided, did.refunded, did.refunding);
        assert_eq!(theirs, (ours.authorized, ours.captured, ours.voided, ours.refunded, 0));
        assert_eq!(provider.get(&did.intent_id).await.expect("an answer").as_ref(), Some(did), "asked by its name");
    }
    let sums = orders.map(|order| (told[&order].captured, told[&order].voided, told[&order].refunded));
    assert_eq!(sums, [(2_500, 0, 0), (2_500, 0, 1_000), (2_500, 0, 2_500), (0, 2_500, 0), (0, 0, 0)]);
    assert_eq!(provider.get("pi_00000000000000000000000000000000").await, Ok(None));
}

/// A charge tells one sum of what went back and what is about to.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_counts_once_it_arrived(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.captured("pm_souk_refund_waits").await;
    for amount in ["100", "300", "700"] {
        till.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", amount)]).await;
    }
    let refunds = till.service.provider.list_refunds(&till.intent_id(order).await).await;
    let Ok(Answer::Done(refunds)) = refunds else { panic!("{refunds:?}") };
    for (refund, status) in refunds.iter().zip(["succeeded", "failed"]) {
        till.at_provider(order, &format!("/_refunds/{}", refund.id), &[("status", status)]).await;
    }
    let told = all(&till.asked(), &(0..u64::MAX)).await;
    assert_eq!(told.iter().map(|did| (did.refunded, did.refunding)).collect::<Vec<_>>(), [(700, 100)]);
}

/// Each intent is created in one second, so times that follow each other tell each of them once.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn times_that_follow_each_other_tell_everything_once(db: PgPool) {
    let till = Till::open(db).await;
    till.create_many(3).await;
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).expect("after 1970");
    let (mut told, provider) = (0, till.asked());
    for created in [0..now, now..now + 1, now + 1..u64::MAX] {
        told += all(&provider, &created).await.len();
    }
    assert_eq!(told, 3);
    assert!(all(&provider, &(0..1)).await.is_empty());
}
