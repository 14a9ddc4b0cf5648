//! Stripe's own mock says whether Stripe would understand us. It checks requests against Stripe's schema and responds
//! with fixtures, so only our requests are under test. Unusual responses come from a server that returns one fixed response.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::RATES;
use crate::budget::Budget;
use crate::stripe::{CallError, RefundStatus, Response, Stripe};

fn done<T, E>(what: &str, response: Result<Response<T>, E>) -> T
where
    T: std::fmt::Debug,
    E: std::fmt::Display,
{
    match response {
        Ok(Response::Done(it)) => it,
        Ok(response) => panic!("{what}: {response:?}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The mock responds with fixtures, which are about nothing of ours, and refuses requests that break the schema.
fn understood<T>(what: &str, response: Result<Response<T>, CallError>)
where
    T: std::fmt::Debug,
{
    match response {
        Ok(Response::Done(_)) => {}
        Err(error) if error.to_string().ends_with("the response is about something else") => {}
        response => panic!("{what}: {response:?}"),
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_request_is_one_that_stripe_understands(db: PgPool) {
    let url = std::env::var("SOUK_TEST_STRIPE").expect("SOUK_TEST_STRIPE: `make test-servers` says what it is");
    let stripe = Stripe::new(&url, "sk_test_123", Duration::from_secs(10), Budget::new(db, RATES)).expect("a URL");
    understood("create", stripe.create("k1", (2_500, "EUR"), "pm_card_visa", ("p", "o")).await);
    understood("confirm", stripe.confirm("k2", "pi_1").await);
    understood("capture", stripe.capture("k3", "pi_1").await);
    understood("cancel", stripe.cancel("k4", "pi_1").await);
    understood("get", stripe.get("pi_1").await);
    understood("refund", stripe.refund("k5", "pi_1", 1_000, uuid::Uuid::now_v7()).await);
    understood("get_refund", stripe.get_refund("re_1").await);
    understood("list_refunds", stripe.list_refunds("pi_1").await);
    understood("list", stripe.list_intents(&(1..u64::MAX), None).await);
    understood("list", stripe.list_intents(&(1..2), Some("pi_1")).await);
    let nonsense = stripe.confirm("k6", "pi_1/nonsense").await;
    assert!(matches!(nonsense, Ok(Response::Refused(_))), "the mock looks at what it is asked: {nonsense:?}");
}

/// A server that gives the same response to every request, and the first lines of the requests.
async fn listen(db: &PgPool, status: &str, headers: &str, body: String) -> (Stripe, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}");
    let response = format!("{head}\r\n{body}");
    let (send, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // Requests are small and come in one piece.
            let mut request = [0; 4_096];
            let count = client.read(&mut request).await.expect("a request");
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            // Most tests do not look at them.
            let _ = send.send(request.lines().next().expect("a request").to_owned());
            client.write_all(response.as_bytes()).await.expect("it is waited for");
        }
    });
    let stripe = Stripe::new(&url, "sk_test_123", Duration::from_secs(10), Budget::new(db.clone(), RATES));
    (stripe.expect("a URL"), requests)
}

async fn fixed_response(db: &PgPool, status: &str, body: String) -> Stripe {
    listen(db, status, "", body).await.0
}

/// It would take the key of the shop to whatever server the response names.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_redirect_is_not_followed(db: PgPool) {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        let location = "location: /v1/elsewhere\r\n";
        let (stripe, mut requests) = listen(&db, status, location, String::new()).await;
        let outcome = stripe.get("pi_1").await;
        assert!(matches!(outcome, Err(CallError::OutcomeUnknown(_))), "{status}: {outcome:?}");
        assert!(requests.recv().await.expect("the call").contains("/v1/payment_intents/pi_1?"));
        assert!(requests.try_recv().is_err(), "{status}: there was another request");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_id_is_one_segment_of_a_path_whatever_it_consists_of(db: PgPool) {
    const ODD: &str = "pi_1/../../refunds?a=1&b#c d";
    const ENCODED: &str = "pi_1%2F%2E%2E%2F%2E%2E%2Frefunds%3Fa%3D1%26b%23c%20d";
    let (stripe, mut requests) = listen(&db, "404 Not Found", "", "{}".to_owned()).await;
    let _ = stripe.confirm("k", ODD).await;
    let _ = stripe.capture("k", ODD).await;
    let _ = stripe.cancel("k", ODD).await;
    let _ = stripe.get(ODD).await;
    let _ = stripe.get_refund(ODD).await;
    let _ = stripe.list_refunds(ODD).await;
    let _ = stripe.list_intents(&(1..2), Some(ODD)).await;
    for expected in [
        format!("POST /v1/payment_intents/{ENCODED}/confirm HTTP"),
        format!("POST /v1/payment_intents/{ENCODED}/capture HTTP"),
        format!("POST /v1/payment_intents/{ENCODED}/cancel HTTP"),
        format!("GET /v1/payment_intents/{ENCODED}?expand"),
        format!("GET /v1/refunds/{ENCODED} HTTP"),
        format!("GET /v1/refunds?payment_intent={ENCODED}&limit"),
        format!("starting_after={ENCODED} HTTP"),
    ] {
        let line = requests.recv().await.expect("a request");
        assert!(line.contains(&expected), "{line} has no {expected}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_response_about_something_else_leaves_the_outcome_unknown(db: PgPool) {
    let ours = uuid::Uuid::now_v7();
    let intent = json!({"id": "pi_theirs", "status": "requires_capture", "metadata": {"payment_id": "theirs"}});
    let stripe = fixed_response(&db, "200 OK", intent.to_string()).await;
    let create = stripe.create("k1", (2_500, "EUR"), "pm_card_visa", ("ours", "o")).await;
    let calls = [
        create.map(drop),
        stripe.confirm("k2", "pi_ours").await.map(drop),
        stripe.capture("k3", "pi_ours").await.map(drop),
        stripe.cancel("k4", "pi_ours").await.map(drop),
        stripe.get("pi_ours").await.map(drop),
    ];
    assert!(
        calls.iter().all(|call| call
            .as_ref()
            .is_err_and(|it| matches!(it, CallError::OutcomeUnknown(unknown) if !unknown.error_may_be_stored))),
        "{calls:?}"
    );
    done("theirs", stripe.get("pi_theirs").await);

    let refund = json!({"id": "re_theirs", "amount": 5, "status": "succeeded", "payment_intent": "pi_theirs"});
    let stripe = fixed_response(&db, "200 OK", refund.to_string()).await;
    assert!(stripe.refund("k1", "pi_ours", 5, ours).await.is_err());
    assert!(stripe.get_refund("re_ours").await.is_err());
    done("theirs", stripe.get_refund("re_theirs").await);
    let stripe = fixed_response(&db, "200 OK", json!({"data": [refund], "has_more": false}).to_string()).await;
    assert!(stripe.list_refunds("pi_ours").await.is_err());
    done("theirs", stripe.list_refunds("pi_theirs").await);

    let error = json!({"error": {"type": "card_error", "code": "card_declined", "payment_intent": intent}});
    let stripe = fixed_response(&db, "402 Payment Required", error.to_string()).await;
    assert!(stripe.confirm("k2", "pi_ours").await.is_err(), "somebody else's card was declined");
    assert!(matches!(stripe.confirm("k2", "pi_theirs").await, Ok(Response::Declined(_))));
}

/// What Stripe's API description (the one in its mock, 2026-08-26.dahlia, `components.schemas`) says may be null in the objects
/// that we read, and what older versions had beside.
const NULLABLE_OF_INTENT: [&str; 26] = [
    "application",
    "application_fee_amount",
    "automatic_payment_methods",
    "canceled_at",
    "cancellation_reason",
    "client_secret",
    "customer",
    "description",
    "last_payment_error",
    "latest_charge",
    "next_action",
    "on_behalf_of",
    "payment_method",
    "payment_method_configuration_details",
    "payment_method_options",
    "processing",
    "receipt_email",
    "review",
    "setup_future_usage",
    "shipping",
    "source",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_data",
    "transfer_group",
    // Not by the schema, but for a complete response at no cost.
    "metadata",
];
const NULLABLE_OF_REFUND: [&str; 13] = [
    "balance_transaction",
    "charge",
    "customer",
    "customer_account",
    "failure_reason",
    "metadata",
    "payment_intent",
    "payment_method",
    "reason",
    "receipt_number",
    "source_transfer_reversal",
    "status",
    "transfer_reversal",
];

fn without(object: &Value, field: &str) -> [Value; 2] {
    let (mut null, mut absent) = (object.clone(), object.clone());
    null[field] = Value::Null;
    absent.as_object_mut().expect("an object").remove(field);
    [null, absent]
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn null_values_make_no_response_unreadable(db: PgPool) {
    let refund = json!({
        "id": "re_1", "object": "refund", "amount": 5, "currency": "eur", "charge": "ch_1", "payment_intent": "pi_1",
        "status": "succeeded", "metadata": {"refund_id": "r"},
    });
    for field in NULLABLE_OF_REFUND {
        for refund in without(&refund, field) {
            let stripe = fixed_response(&db, "200 OK", json!({"data": [refund], "has_more": false}).to_string()).await;
            let listed = done(field, stripe.list_refunds("pi_1").await);
            let expected = if field == "status" { RefundStatus::UnderWay } else { RefundStatus::Succeeded };
            assert_eq!((listed.len(), listed[0].status), (1, expected), "{field}");
            let stripe = fixed_response(&db, "200 OK", refund.to_string()).await;
            assert_eq!(done(field, stripe.get_refund("re_1").await).amount, 5, "{field}");
        }
    }
    let charge = json!({"id": "ch_1", "object": "charge", "status": "succeeded", "amount_refunded": 0});
    let intent = json!({
        "id": "pi_1", "object": "payment_intent", "amount": 5, "status": "requires_capture", "latest_charge": charge,
        "last_payment_error": {"type": "card_error", "code": null, "decline_code": null, "param": null}, "metadata": {},
    });
    for field in NULLABLE_OF_INTENT {
        for intent in without(&intent, field) {
            let stripe = fixed_response(&db, "200 OK", intent.to_string()).await;
            let found = done(field, stripe.get("pi_1").await);
            assert_eq!(found.was_authorized(), field != "latest_charge", "{field}");
        }
    }
}
