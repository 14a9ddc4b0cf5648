//! Stripe's own mock says whether Stripe would understand us. It checks requests against Stripe's schema and answers
//! fixtures, so only our requests are under test.

use std::time::Duration;

use crate::stripe::{Answer, Stripe};

fn done<T, E>(what: &str, answer: Result<Answer<T>, E>) -> T
where
    T: std::fmt::Debug,
    E: std::fmt::Display,
{
    match answer {
        Ok(Answer::Done(it)) => it,
        Ok(answer) => panic!("{what}: {answer:?}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[tokio::test]
async fn every_request_is_one_that_stripe_understands() {
    let url = std::env::var("SOUK_TEST_STRIPE").expect("SOUK_TEST_STRIPE: `make test-servers` says what it is");
    let stripe = Stripe::new(&url, "sk_test_123", Duration::from_secs(10)).expect("a URL");
    let metadata = [("metadata[payment_id]", "p"), ("metadata[order_id]", "o")];
    let intent = done("create", stripe.create("k1", (2_500, "EUR"), "pm_card_visa", metadata).await);
    done("confirm", stripe.confirm("k2", &intent.id).await);
    done("capture", stripe.capture("k3", &intent.id).await);
    done("cancel", stripe.cancel("k4", &intent.id).await);
    done("get", stripe.get(&intent.id).await);
    let refund = done("refund", stripe.refund("k5", &intent.id, 1_000, uuid::Uuid::now_v7()).await);
    done("get_refund", stripe.get_refund(&refund.id).await);
    done("list_refunds", stripe.list_refunds(&intent.id).await);
}
