//! One connection carries the calls of many clients: one of them must not end the calls of the others.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use chassis::boot::metrics;
use chassis::rpc::token::{Revoked, Verifier};
use chassis::tls::{Connection, Origin};
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use http::uri::PathAndQuery;
use testkit::{Kit, Log};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;
use uuid::Uuid;

const TEST: roster::Role = roster::Role { name: "test", domain: "souk.test", number: 0, has_database: false };
/// More resets than h2 allows by default before it ends a connection.
const BURST: usize = 90;

fn check(connection: &mut SendRequest<Bytes>) -> (ResponseFuture, h2::SendStream<Bytes>) {
    let request = Request::post("http://souk.test/grpc.health.v1.Health/Check");
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(());
    connection.send_request(request.expect("a request"), false).expect("the connection is open")
}

/// A role without RPCs, whose process has just started and waits so long until it can verify access tokens.
async fn start(patience: Duration) -> (Kit, Arc<Verifier>, Channel) {
    let mut kit = Kit::new();
    let mut verifier = Verifier::new(&kit.context.verifier.issuer, &kit.context.verifier.audience);
    verifier.patience = patience;
    let verifier = Arc::new(verifier);
    kit.context.verifier = verifier.clone();
    let channel = kit.serve(chassis::Role::new(roster::ORDER, &kit.context)).await;
    (kit, verifier, channel)
}

/// The reason why a call with this token is refused.
async fn list_orders(channel: &Channel, token: &str) -> String {
    call(channel, "/souk.order.v1.OrderService/ListOrders", token).await
}

async fn call(channel: &Channel, rpc: &'static str, token: &str) -> String {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a pipe");
    let mut request = tonic::Request::new(());
    let bearer = format!("Bearer {token}").parse().expect("a token is visible text");
    request.metadata_mut().insert("authorization", bearer);
    let response = client.unary(request, PathAndQuery::from_static(rpc), ProstCodec::<(), ()>::default()).await;
    testkit::reason(&response.expect_err("the role has no RPCs"))
}

#[tokio::test]
async fn a_call_of_a_process_that_starts_waits_until_tokens_can_be_verified() {
    let (kit, verifier, channel) = start(Duration::from_secs(3_600)).await;
    let token = kit.token(Uuid::from_u128(1), Uuid::from_u128(2));
    let mut call = pin!(list_orders(&channel, &token));
    tokio::select! {
        refused = &mut call => panic!("it did not wait: {refused}"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    verifier.set_keys(&kit.keys());
    verifier.set_revoked(Revoked::default());
    assert_eq!(call.await, "METHOD_NOT_FOUND@souk.order", "it was admitted");
    assert_eq!(list_orders(&channel, "nonsense").await, "TOKEN_INVALID@souk.order");
}

#[tokio::test]
async fn a_call_does_not_wait_for_ever() {
    let (kit, _, channel) = start(Duration::from_millis(1)).await;
    let token = kit.token(Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(list_orders(&channel, &token).await, "KEYS_UNAVAILABLE@souk.order");
}

/// Security events: an operator sees in the log who tried what.
#[tokio::test]
async fn a_refused_call_is_logged_with_who_called() {
    const FULFILL: &str = "/souk.order.v1.OrderService/FulfillOrder";
    const STATES: &str = "/souk.order.v1.OrderService/BatchGetOrderStates";
    let mut kit = Kit::new();
    let edge = kit.serve(chassis::Role::new(roster::ORDER, &kit.context)).await;
    let (log, user_id) = (Log::keep(), Uuid::from_u128(1));
    let token = kit.token(user_id, Uuid::from_u128(2));
    let find = |parts: &[&str]| {
        let lines = log.find("a call was refused");
        lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    };

    assert_eq!(call(&edge, FULFILL, &token).await, "PERMISSION_DENIED@souk.order");
    assert_eq!(find(&["WARN", FULFILL, "PERMISSION_DENIED", &format!("user:{user_id}")]), 1);
    let kafka = kit.connect("kafka").await;
    assert_eq!(list_orders(&kafka, &token).await, "PERMISSION_DENIED@souk.order");
    assert_eq!(find(&["WARN", "ListOrders", "PERMISSION_DENIED", "party=\"kafka\""]), 1);
    assert_eq!(call(&edge, STATES, &token).await, "PERMISSION_DENIED@souk.order");
    assert_eq!(find(&["WARN", STATES, "PERMISSION_DENIED", "party=\"edge\""]), 1);

    assert_eq!(list_orders(&edge, "not.a.token").await, "TOKEN_INVALID@souk.order");
    assert_eq!(find(&["INFO", "ListOrders", "TOKEN_INVALID", "it is not a JWT"]), 1);
    kit.context.verifier.set_revoked(Revoked { session_ids: vec![Uuid::from_u128(2)] });
    assert_eq!(list_orders(&edge, &token).await, "TOKEN_REVOKED@souk.order");
    assert_eq!(find(&["INFO", "ListOrders", "TOKEN_REVOKED"]), 1);
    for secret in [token.as_str(), "not.a.token"] {
        assert!(log.find(secret).is_empty());
    }
    let page = metrics::render();
    assert!(page.contains("souk_rpc_refused_total{reason=\"TOKEN_REVOKED\"}"), "{page}");
}

#[tokio::test]
async fn a_client_that_cancels_a_burst_of_calls_does_not_end_those_of_others() {
    let kit = Kit::new();
    let mut role = chassis::Role::new(TEST, &kit.context);
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let theirs = Connection::new(theirs, Origin::Unverified);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs)).chain(tokio_stream::pending());
    let server = chassis::boot::server::serve(&mut role, &kit.context, incoming, CancellationToken::new());
    let (_health, server) = server.await.expect("the role can be served");
    tokio::spawn(server);

    let (connection, wire) = h2::client::handshake(ours).await.expect("a connection");
    let mut wire = pin!(wire);
    let mut connection = connection;
    let (response, mut message) = check(&mut connection);
    let mut burst: Vec<_> = (0..BURST).map(|_| check(&mut connection)).collect();
    // The server is a task of this thread: it sees nothing until we wait, and then the calls and their resets at once.
    let flush = async |wire: &mut _| {
        std::future::poll_fn(|cx| {
            let open = Future::poll(std::pin::Pin::as_mut(wire), cx);
            assert!(open.is_pending(), "the connection ended");
            Poll::Ready(())
        })
        .await;
    };
    flush(&mut wire).await;
    for (_, stream) in &mut burst {
        stream.send_reset(Reason::CANCEL);
    }
    flush(&mut wire).await;

    message.send_data(Bytes::from_static(&[0; 5]), true).expect("the stream is open");
    let response = tokio::select! {
        response = response => response,
        end = wire => panic!("the connection ended: {end:?}"),
    };
    assert_eq!(response.expect("the other call continues").status(), 200);
}
