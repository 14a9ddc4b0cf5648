//! The provider's limits: a refused call had no effect, and all workers slow down.

use std::time::Duration;

use chassis::Next;
use sqlx::PgPool;

use super::Fixture;
use crate::budget::{Budget, Rates};
use crate::drive::drive;

impl Fixture {
    /// How many calls a second the provider serves from now on. None: all.
    pub(super) async fn limit(&self, per_second: Option<u32>, how: &[(&str, &str)]) {
        let count = per_second.map(|it| ("per_second", it.to_string()));
        let form: Vec<_> = how.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(count).collect();
        let set = reqwest::Client::new().post(format!("{}/_limits", self.provider)).form(&form).send().await;
        assert!(set.expect("the provider is there").status().is_success());
    }

    /// How many calls the provider served and refused since its limit was set.
    pub(super) async fn calls(&self) -> (u64, u64) {
        let page = reqwest::get(format!("{}/_limits", self.provider)).await.expect("the provider is there");
        let page: serde_json::Value = serde_json::from_slice(&page.bytes().await.expect("a body")).expect("JSON");
        (page["served"].as_u64().expect("a count"), page["refused"].as_u64().expect("a count"))
    }

    /// Takes up one payment once the provider may be asked.
    async fn drive_after_the_pause(&self) {
        while let Some(rest) = self.service.provider.budget.paused() {
            tokio::time::sleep(rest).await;
        }
        self.kit.context.clock.advance(Duration::from_secs(90));
        assert_eq!(drive(self.service.clone()).await.expect("driven"), Next::AtOnce);
    }

    /// Drives once while the provider refuses what is more than so many calls, and once when it does not. How many calls it
    /// served then.
    async fn refused_and_repeated(&self, served_before: u32, how: &[(&str, &str)]) -> u64 {
        self.limit(Some(served_before), how).await;
        drive(self.service.clone()).await.expect("driven");
        assert_eq!(self.calls().await, (served_before.into(), 1), "one was too many");
        self.limit(None, &[]).await;
        self.drive_after_the_pause().await;
        self.calls().await.0
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_call_refused_for_rate_limits_had_no_effect_and_is_not_looked_up(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for how in [&[][..], &[("reason", "lock_timeout")], &[("reason", "endpoint-rate"), ("retry_after", "0")]] {
        let order = fixture.reserved("pm_card_visa").await;
        assert_eq!(fixture.refused_and_repeated(1, how).await, 1, "{how:?}: created before, confirmed now");
        assert_eq!(fixture.state(order).await, "AUTHORIZED");
        fixture.confirmed(order).await;
        assert_eq!(fixture.refused_and_repeated(0, how).await, 1, "{how:?}: captured");
        assert_eq!(fixture.state(order).await, "CAPTURED");
        fixture.cancelled(order).await;
        assert_eq!(fixture.refused_and_repeated(0, how).await, 1, "{how:?}: refunded");
        fixture.work().await;
        let kinds = ["AUTHORIZATION", "CAPTURE", "REFUND"];
        fixture.expect(order, "CAPTURED", &kinds, &["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"]).await;

        let order = fixture.reserved("pm_card_visa").await;
        fixture.work().await;
        fixture.cancelled(order).await;
        assert_eq!(fixture.refused_and_repeated(0, how).await, 1, "{how:?}: let go");
        assert_eq!(fixture.state(order).await, "VOIDED");
    }
}

/// The order ended while its confirmation waited.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_refused_and_is_not_wanted_any_more_is_withdrawn(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.limit(Some(1), &[]).await;
    drive(fixture.service.clone()).await.expect("driven");
    fixture.cancelled(order).await;
    fixture.limit(None, &[]).await;
    fixture.drive_after_the_pause().await;
    fixture.work().await;
    fixture.expect(order, "VOIDED", &[], &[]).await;
    assert_eq!(fixture.theirs(order).await, []);
}

/// A call that was lost, and whose lookup was refused, is still looked up.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_lookup_that_was_refused_leaves_the_outcome_unknown(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_souk_error_after_success").await;
    drive(fixture.service.clone()).await.expect("driven");
    assert_eq!(fixture.state(order).await, "AUTHORIZING", "the response to the confirmation was an error");
    fixture.kit.context.clock.advance(Duration::from_secs(90));
    fixture.limit(Some(0), &[]).await;
    drive(fixture.service.clone()).await.expect("driven");
    fixture.limit(None, &[]).await;
    fixture.drive_after_the_pause().await;
    assert_eq!((fixture.calls().await, fixture.state(order).await.as_str()), ((1, 0), "AUTHORIZED"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refusal_pauses_every_replica_and_slows_all_of_them_down(db: PgPool) {
    let rates = Rates { calls: 1_000, comparisons: 1_000 };
    let (here, there) = (Budget::new(db.clone(), rates), Budget::new(db.clone(), rates));
    here.take().await.expect("there is room");
    assert!(there.take_comparison().await.expect("asked"));
    let rest = here.pause(Some(Duration::from_secs(30))).await.expect("paused");
    assert!(rest > Duration::from_secs(20), "as long as the provider asks for: {rest:?}");
    here.pause(None).await.expect("it is paused already");
    for (budget, who) in [(&here, "here"), (&there, "there")] {
        let deferred = budget.take().await.expect_err(who);
        assert!(deferred.pause.is_some_and(|rest| rest > Duration::from_secs(20)), "{who}: {deferred:?}");
        assert!(!budget.take_comparison().await.expect("asked"), "{who}");
    }
    let slowdown = sqlx::query_scalar!("select slowdown from provider_budget");
    assert_eq!(slowdown.fetch_one(&db).await.expect("a row"), 1, "two refusals of one moment are one");
    let pace = sqlx::query_scalar!(
        r#"update provider_budget set paused_until = clock_timestamp() returning slowdown_now(provider_budget) as "it!""#,
    );
    assert!(pace.fetch_one(&db).await.expect("a row") > 0.0, "after the pause it is slower at first");
    sqlx::query!("update provider_budget set paused_until = clock_timestamp() - interval '2 seconds'")
        .execute(&db)
        .await
        .expect("some time later");
    let pace = sqlx::query_scalar!(r#"select slowdown_now(provider_budget) as "it!" from provider_budget"#);
    assert_eq!(pace.fetch_one(&db).await.expect("a row"), 0.0, "and then as fast as before");
}

/// All that waited comes at once when a pause ends, and finds that nothing was saved up for it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn after_a_pause_there_is_no_burst(db: PgPool) {
    let budget = Budget::new(db.clone(), Rates { calls: 1_000, comparisons: 1_000 });
    budget.pause(Some(Duration::ZERO)).await.expect("paused, and over");
    budget.take().await.expect("its moment comes");
    let spent = sqlx::query_scalar!(
        r#"select spent_until > paused_until + interval '250 milliseconds' as "it!" from provider_budget"#,
    );
    assert!(spent.fetch_one(&db).await.expect("a row"));
}

/// Whatever two replicas call, the row that they share says how much that may be.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn two_replicas_share_one_budget(db: PgPool) {
    let rates = Rates { calls: 50, comparisons: 1_000 };
    let (here, there) = (Budget::new(db.clone(), rates), Budget::new(db.clone(), rates));
    let begun = std::time::Instant::now();
    let calls = async |budget: &Budget| {
        for _ in 0..30 {
            budget.take().await.expect("its moment comes");
        }
    };
    tokio::join!(calls(&here), calls(&there));
    // 60 calls at 40 a second, but for what may be made up for and a batch of each that was begun.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

/// Comparisons stand back as long as calls wait, and never have more than their own pace.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn comparisons_share_one_pace_and_yield_to_calls(db: PgPool) {
    let slow = Rates { calls: 1_000, comparisons: 1 };
    let (here, there) = (Budget::new(db.clone(), slow), Budget::new(db.clone(), slow));
    let (begun, mut taken) = (std::time::Instant::now(), 0);
    for _ in 0..10 {
        taken += u64::from(here.take_comparison().await.expect("asked"));
        taken += u64::from(there.take_comparison().await.expect("asked"));
    }
    let most = 2 + begun.elapsed().as_secs();
    assert!((1..=most).contains(&taken), "{taken} by two replicas");
    sqlx::query!(
        "update provider_budget set compared_until = 'epoch', spent_until = clock_timestamp() + interval '1 hour'"
    )
    .execute(&db)
    .await
    .expect("calls wait");
    assert!(!here.take_comparison().await.expect("asked"));
    assert!(here.take().await.is_err_and(|deferred| deferred.pause.is_some()), "nor does a call wait for an hour");
    let mut check = std::pin::pin!(here.wait_for_payments());
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut check).await.is_err(),
        "nor does a check take its place"
    );
    let paid = sqlx::query!("update provider_budget set spent_until = clock_timestamp()");
    paid.execute(&db).await.expect("no call waits");
    check.await.expect("asked");
}
