//! Clients that are slow, too many, or abuse the protocol; and an edge that has no memory left.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Edge, wait};

/// A tenth of the usual times, in the configuration.
fn hurry(yaml: String) -> String {
    let mut changed = yaml;
    for (usual, short) in [
        ("request_headers_timeout: 10s", "request_headers_timeout: 1s"),
        ("request_timeout: 30s", "request_timeout: 3s"),
        ("stream_idle_timeout: 30s", "stream_idle_timeout: 3s"),
        ("max_connection_duration: 300s", "max_connection_duration: 3s"),
    ] {
        assert!(changed.contains(usual), "{usual}");
        changed = changed.replace(usual, short);
    }
    changed
}

/// What Envoy sends to a client that sends no more, until it closes the connection.
async fn read_to_end(connection: &mut TcpStream) -> String {
    let mut response = Vec::new();
    let read = timeout(Duration::from_secs(60), connection.read_to_end(&mut response)).await;
    read.expect("Envoy cuts the client").expect("the connection is closed in order");
    String::from_utf8_lossy(&response).into_owned()
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_cut() {
    let edge = Edge::start_changed(hurry).await;
    for begun in [
        "GET /v1/products HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    ] {
        let mut connection = TcpStream::connect(edge.address).await.expect("Envoy listens");
        connection.write_all(begun.as_bytes()).await.expect("Envoy reads");
        let response = read_to_end(&mut connection).await;
        assert!(response.contains("DEADLINE_EXCEEDED"), "{begun}: {response}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_cut() {
    let edge = Edge::start_changed(hurry).await;
    let stream = TcpStream::connect(edge.address).await.expect("Envoy listens");
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(100).handshake::<_, &[u8]>(stream).await.expect("a connection");
    let connection = tokio::spawn(connection);
    let token = format!("Bearer {}", edge.sign(serde_json::json!({"role": "operator"})));
    let request = http::Request::get("http://souk/v1/payments").header("authorization", token);
    let mut client = client.ready().await.expect("a stream may begin");
    let (response, _) = client.send_request(request.body(()).expect("a request"), true).expect("it is sent");
    let mut body = response.await.expect("it begins").into_body();
    let read = async {
        // What was read is not reported, so that Envoy may send no more.
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the response is longer than what may be sent"),
            }
        }
    };
    let error = timeout(Duration::from_secs(60), read).await.expect("the client is cut");
    assert!(error.is_reset() && error.is_remote(), "{error}");
    connection.abort();
}

/// So nobody collects connections by using each from time to time.
#[tokio::test]
async fn a_connection_ends_also_if_it_is_used() {
    let edge = Edge::start_changed(hurry).await;
    let mut connection = TcpStream::connect(edge.address).await.expect("Envoy listens");
    let mut all = String::new();
    // At most about ten times as long as it may last.
    for _ in 0..300 {
        connection.write_all(b"GET /v1/users/me HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("Envoy reads");
        let mut response = vec![0; 16 << 10];
        let length = connection.read(&mut response).await.expect("Envoy responds");
        all = String::from_utf8_lossy(&response[..length]).into_owned();
        if all.contains("connection: close") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(all.contains("connection: close"), "{all}");
    assert_eq!(read_to_end(&mut connection).await, "", "then it is closed");
}

#[tokio::test]
async fn connections_in_all_are_bounded() {
    let edge = Edge::start(&["--edge-max-connections=3"]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(edge.address).await.expect("Envoy listens"));
    }
    wait("three connections", async || (edge.statistic("http.edge.downstream_cx_active").await == 3).then_some(()))
        .await;
    let request = "GET /v1/users/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(edge.send_from(edge.source, request).await, "", "one more is closed");
    drop(open);
    wait("a place", async || edge.send_from(edge.source, request).await.starts_with("HTTP/1.1 401 ").then_some(()))
        .await;
}

#[tokio::test]
async fn a_connection_whose_streams_are_mostly_reset_is_closed() {
    let edge = Edge::start(&[]).await;
    let stream = TcpStream::connect(edge.address).await.expect("Envoy listens");
    let (client, connection) = h2::client::handshake(stream).await.expect("a connection");
    let mut client = client;
    let flood = async {
        for opened in 0..10_000 {
            let Ok(mut ready) = client.clone().ready().await else { return opened };
            let request = http::Request::get("http://souk/v1/products").body(()).expect("a request");
            let Ok((_, mut stream)) = ready.send_request(request, true) else { return opened };
            stream.send_reset(h2::Reason::CANCEL);
            client = ready;
            tokio::task::yield_now().await;
        }
        panic!("nothing ends the flood");
    };
    // h2 says nothing about why the other side closed the connection.
    let (_, opened) = tokio::join!(connection, flood);
    assert!(opened >= 50, "a client may reset some: {opened}");
    assert!(edge.statistic("http.edge.downstream_rq_too_many_premature_resets").await > 0);
}

/// Less memory than Envoy needs when it is idle.
fn starve(yaml: String) -> String {
    let (before, after) = yaml.split_once("max_heap_size_bytes: ").expect("the heap is bounded");
    let (_, after) = after.split_once('}').expect("a bound");
    format!("{before}max_heap_size_bytes: 1000000}}{after}")
}

/// Without what is between these.
fn without(yaml: String, begin: &str, end: &str) -> String {
    let (before, after) = yaml.split_once(begin).expect("it is there");
    let (_, after) = after.split_once(end).expect("it ends");
    format!("{before}{end}{after}")
}

#[tokio::test]
async fn without_memory_no_connection_is_accepted() {
    let edge = Edge::start_changed(|yaml| without(starve(yaml), "  actions:", "  loadshed_points:")).await;
    wait("Envoy to close connections", async || {
        let request = "GET /v1/users/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        edge.send_from(edge.source, request).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_memory_requests_are_refused_and_counted() {
    // Connections are still accepted, to see that their requests are refused.
    let edge = Edge::start_changed(|yaml| without(starve(yaml), "  loadshed_points:", "static_resources:")).await;
    let refuses = "overload.envoy.overload_actions.stop_accepting_requests.active";
    wait("Envoy to notice it", async || (edge.statistic(refuses).await == 1).then_some(())).await;
    let request = "GET /v1/users/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let response = edge.send_from(edge.source, request).await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(edge.statistic("http.edge.downstream_rq_overload_close").await > 0);
}
