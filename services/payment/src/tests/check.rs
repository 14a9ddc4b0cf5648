//! What `souk check` reads at the provider is what our books say.

use std::collections::BTreeMap;
use std::ops::Range;

use sqlx::PgPool;

use super::Fixture;
use crate::check::{Movements, Provider, ledger_sums};
use crate::stripe::Response;

impl Fixture {
    fn provider_of_checks(&self) -> Provider {
        Provider::new(&self.provider, "sk_test_souk", 100_000, self.service.db.clone()).expect("a URL")
    }

    /// Payment intents that nobody confirms, so that there is more than one page.
    async fn create_many(&self, count: u32) {
        for at in 0..count {
            let (key, payment_id) = (format!("k{at}"), format!("p{at}"));
            let created =
                self.service.provider.create(&key, (100, "EUR"), "pm_card_visa", (&payment_id, "nobody")).await;
            assert!(matches!(created, Ok(Response::Done(_))), "{created:?}");
        }
    }
}

async fn all(provider: &Provider, created: &Range<u64>) -> Vec<Movements> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = provider.list(created, after.as_deref()).await.expect("a response");
        all.extend(page.intents);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_provider_lists_what_the_books_say(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (kept, partly, back) = (
        fixture.captured("pm_card_visa").await,
        fixture.captured("pm_card_visa").await,
        fixture.captured("pm_card_visa").await,
    );
    fixture.refund(partly, "k1", Some(700)).await.expect("reserved");
    fixture.refund(partly, "k2", Some(300)).await.expect("reserved");
    fixture.cancelled(back).await;
    let voided = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.cancelled(voided).await;
    let declined = fixture.reserved("pm_card_chargeDeclined").await;
    fixture.work().await;
    let orders = [kept, partly, back, voided, declined];
    fixture.create_many(100).await;

    let provider = fixture.provider_of_checks();
    let listed = all(&provider, &(0..u64::MAX)).await;
    assert_eq!(listed.len(), 105);
    assert!(listed.iter().take(100).all(|it| it.order_id.is_none() && it.authorized == 0), "newest first");
    let listed: BTreeMap<_, _> = listed.iter().filter_map(|it| Some((it.order_id?, it))).collect();
    let ours = ledger_sums(&fixture.service.db, &orders).await.expect("read");
    for order in orders {
        let (moved, ours) = (listed[&order], &ours[&order]);
        assert_eq!(ours.intent_id.as_ref(), Some(&moved.intent_id));
        let theirs = (moved.authorized, moved.captured, moved.voided, moved.refunded, moved.refunding);
        assert_eq!(theirs, (ours.authorized, ours.captured, ours.voided, ours.refunded, 0));
        assert_eq!(
            provider.get(&moved.intent_id).await.expect("a response").as_ref(),
            Some(moved),
            "asked by its name"
        );
    }
    let sums = orders.map(|order| (listed[&order].captured, listed[&order].voided, listed[&order].refunded));
    assert_eq!(sums, [(2_500, 0, 0), (2_500, 0, 1_000), (2_500, 0, 2_500), (0, 2_500, 0), (0, 0, 0)]);
    assert_eq!(provider.get("pi_00000000000000000000000000000000").await, Ok(None));
}

/// A charge has one sum of what went back and what is about to.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_counts_once_it_arrived(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_souk_refund_waits").await;
    for amount in ["100", "300", "700"] {
        fixture.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", amount)]).await;
    }
    let refunds = fixture.service.provider.list_refunds(&fixture.intent_id(order).await).await;
    let Ok(Response::Done(refunds)) = refunds else { panic!("{refunds:?}") };
    for (refund, status) in refunds.iter().zip(["succeeded", "failed"]) {
        fixture.at_provider(order, &format!("/_refunds/{}", refund.id), &[("status", status)]).await;
    }
    let listed = all(&fixture.provider_of_checks(), &(0..u64::MAX)).await;
    assert_eq!(listed.iter().map(|it| (it.refunded, it.refunding)).collect::<Vec<_>>(), [(700, 100)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn adjacent_windows_list_every_intent_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.create_many(3).await;
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).expect("after 1970");
    let (mut listed, provider) = (0, fixture.provider_of_checks());
    for created in [0..now, now..now + 1, now + 1..u64::MAX] {
        listed += all(&provider, &created).await.len();
    }
    assert_eq!(listed, 3);
    assert!(all(&provider, &(0..1)).await.is_empty());
}
