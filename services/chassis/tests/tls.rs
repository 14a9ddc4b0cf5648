//! Who may call a role over the network: real connections, with certificates of a temporary authority.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::any;
use chassis::boot::{health_of, metrics};
use chassis::tls::{self, Certificates, Connection, Mode, Origin, Party, Tls};
use http::uri::PathAndQuery;
use roster::Role;
use stack::pki::{self, Authority, Validity};
use tempfile::TempDir;
use testkit::{Kit, Log, Raw};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Its callers are listed in its policy: only the order service.
const QUOTE: &str = "/souk.product.v1.ProductService/QuoteItems";
const GET: &str = "/souk.product.v1.ProductService/GetProduct";
const CREATE: &str = "/souk.product.v1.ProductService/CreateProduct";
const PAGE: &str = "/page";
const MESH: &str = "spiffe://x/ns/souk/sa/";

/// A role without RPCs: a call that is admitted is UNIMPLEMENTED. It has a document at `PAGE`, which is INVALID_ARGUMENT.
struct Server {
    address: SocketAddr,
    pki: TempDir,
    certificates: Arc<Certificates>,
    health: HealthReporter,
}

fn pki() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    pki::ensure(folder.path()).expect("certificates can be made");
    folder
}

async fn serve(role: Role, mode: Mode) -> Server {
    serve_callers(role, mode, &[]).await
}

/// `callers`: those whom a setting admits.
async fn serve_callers(role: Role, mode: Mode, callers: &[&str]) -> Server {
    let (mut kit, pki) = (Kit::new(), pki());
    let callers = callers.iter().map(|name| Party::new(name)).collect();
    let certificates = Arc::new(Certificates::new(&Tls {
        mode,
        mesh_prefix: Some(MESH.parse().expect("a prefix")),
        directory: pki.path().to_owned(),
        callers,
    }));
    kit.context.certificates = certificates.clone();
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = incoming.local_addr().expect("an address");
    let incoming = tls::accept(incoming, certificates.of(role.name).expect("its certificate is good"));
    let page = any(async || [("grpc-status", "3"), ("content-type", "application/grpc")]);
    let mut role = chassis::Role::new(role, &kit.context).page(PAGE, page);
    let server = chassis::boot::server::serve(&mut role, &kit.context, incoming, CancellationToken::new());
    let (health, server) = server.await.expect("it can be served");
    tokio::spawn(server);
    Server { address, pki, certificates, health }
}

/// A client as `grpcurl` is one. `authority`: whom it trusts. `own`: where its certificate is.
fn client(address: SocketAddr, authority: &Path, own: Option<(&Path, &str)>) -> Endpoint {
    let read = |folder: &Path, name: String| std::fs::read(folder.join(name)).expect("a file");
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(authority, "ca.crt".to_owned())));
    if let Some((folder, party)) = own {
        let [certificate, key] = ["crt", "key"].map(|extension| read(folder, format!("{party}.{extension}")));
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("a URL");
    endpoint.tls_config(tls).expect("the files are good").timeout(Duration::from_secs(20))
}

impl Server {
    fn client_of(&self, party: &str) -> Endpoint {
        client(self.address, self.pki.path(), Some((self.pki.path(), party)))
    }
}

/// The code of the response to an empty message with these headers.
async fn call(channel: Channel, path: &'static str, headers: &[(&'static str, &str)]) -> Result<Code, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let mut request = Request::new(Vec::new());
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().expect("a header value"));
    }
    let status = client.unary(request, PathAndQuery::from_static(path), Raw).await.expect_err("there are no RPCs");
    // A status that the client made has a source.
    if std::error::Error::source(&status).is_some() { Err(status) } else { Ok(status.code()) }
}

/// The same, over a new connection.
async fn connect_and_call(
    client: &Endpoint,
    path: &'static str,
    headers: &[(&'static str, &str)],
) -> Result<Code, Status> {
    let channel = client.connect().await.map_err(|error| Status::from_error(error.into()))?;
    call(channel, path, headers).await
}

#[tokio::test]
async fn the_certificate_decides_what_a_caller_may_call() {
    let server = serve(roster::PRODUCT, Mode::Mutual).await;
    for (party, path, code) in [
        ("order", QUOTE, Code::Unimplemented),
        ("payment", QUOTE, Code::PermissionDenied),
        ("edge", QUOTE, Code::PermissionDenied),
        ("dev", QUOTE, Code::PermissionDenied),
        ("edge", GET, Code::Unimplemented),
        ("dev", GET, Code::PermissionDenied),
        ("order", PAGE, Code::InvalidArgument),
        ("edge", PAGE, Code::InvalidArgument),
        ("kafka", PAGE, Code::Unimplemented),
        ("edge", "/another", Code::Unimplemented),
        ("kafka", GET, Code::PermissionDenied),
        ("check", CREATE, Code::PermissionDenied),
    ] {
        let said = connect_and_call(&server.client_of(party), path, &[]).await;
        assert_eq!(said.ok(), Some(code), "{party} calls {path}");
    }
}

/// As the edge may call, and no more.
#[tokio::test]
async fn a_setting_admits_a_party_that_is_no_role() {
    let server = serve_callers(roster::PRODUCT, Mode::Mutual, &["dev"]).await;
    for (party, path, code) in [
        ("dev", GET, Code::Unimplemented),
        ("dev", CREATE, Code::Unauthenticated),
        ("dev", QUOTE, Code::PermissionDenied),
        ("edge", GET, Code::Unimplemented),
        ("kafka", GET, Code::PermissionDenied),
    ] {
        let said = connect_and_call(&server.client_of(party), path, &[]).await;
        assert_eq!(said.ok(), Some(code), "{party} calls {path}");
    }
}

#[tokio::test]
async fn no_header_changes_who_calls() {
    let server = serve(roster::PRODUCT, Mode::Mutual).await;
    let forged = [("x-souk-service", "order"), ("x-forwarded-client-cert", "URI=spiffe://souk/order")];
    let said = connect_and_call(&server.client_of("edge"), QUOTE, &forged).await;
    assert_eq!(said.ok(), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn a_caller_without_a_valid_certificate_is_not_served() {
    let server = serve(roster::PRODUCT, Mode::Mutual).await;
    let ours = server.pki.path();
    let foreign = pki();
    Authority::open(ours).expect("it is there").issue("user", Validity::over()).expect("a certificate");
    for (what, own) in [
        ("no certificate", None),
        ("one of another authority", Some((foreign.path(), "order"))),
        ("an expired one", Some((ours, "user"))),
    ] {
        let said = connect_and_call(&client(server.address, ours, own), GET, &[]).await;
        assert!(said.is_err(), "{what}: {said:?}");
    }
    let plain = Endpoint::from_shared(format!("http://{}", server.address)).expect("a URL");
    assert!(connect_and_call(&plain, GET, &[]).await.is_err(), "plain text");
    let said = connect_and_call(&server.client_of("order"), GET, &[]).await;
    assert_eq!(said.ok(), Some(Code::Unimplemented), "others are still served");
}

#[tokio::test]
async fn a_failed_handshake_is_counted_and_logged() {
    // The metric of this role is of this test alone.
    let (server, log) = (serve(roster::PAYMENT, Mode::Mutual).await, Log::keep());
    let anonymous = client(server.address, server.pki.path(), None);
    connect_and_call(&anonymous, GET, &[]).await.expect_err("it has no certificate");
    until("souk_handshakes_failed_total{role=\"payment\"} 1").await;
    let lines = log.find("a handshake failed");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["INFO", "role=\"payment\"", "address=127.0.0.1:", "error="] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
}

#[tokio::test]
async fn a_caller_that_does_not_finish_its_handshake_delays_nobody() {
    let server = serve(roster::PRODUCT, Mode::Mutual).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(server.address).await.expect("it listens"));
    }
    let said = connect_and_call(&server.client_of("order"), GET, &[]).await;
    assert_eq!(said.ok(), Some(Code::Unimplemented));
}

async fn until(metric: &str) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    while !metrics::render().lines().any(|line| line == metric) {
        assert!(tokio::time::Instant::now() < limit, "{metric} is not on the page:\n{}", metrics::render());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_while_callers_connect() {
    // The metrics of this role are of this test alone.
    let server = serve(roster::INVENTORY, Mode::Mutual).await;
    let stop = CancellationToken::new();
    let following = tokio::spawn(server.certificates.clone().follow(stop.clone()));
    let caller = server.client_of("order");
    let calls = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                let said = connect_and_call(&caller, GET, &[]).await;
                assert_eq!(said.as_ref().ok(), Some(&Code::Unimplemented), "call {count}: {said:?}");
                count += 1;
            }
            count
        }
    });
    let authority = Authority::open(server.pki.path()).expect("it is there");
    for days in [40, 50] {
        let valid = Validity::of(time::Duration::days(days));
        authority.issue("inventory", valid).expect("a certificate");
        until(&format!("souk_certificate_expires{{role=\"inventory\"}} {}", valid.until.unix_timestamp())).await;
    }
    // Bad files are not used.
    std::fs::write(server.pki.path().join("inventory.crt"), "nonsense").expect("the folder is ours");
    until("souk_certificate_refused_total{role=\"inventory\"} 1").await;
    authority.issue("inventory", Validity::over()).expect("a certificate");
    until("souk_certificate_refused_total{role=\"inventory\"} 2").await;
    let valid = Validity::of(time::Duration::days(60));
    authority.issue("inventory", valid).expect("a certificate");
    until(&format!("souk_certificate_expires{{role=\"inventory\"}} {}", valid.until.unix_timestamp())).await;
    stop.cancel();
    assert!(calls.await.expect("no call failed") > 0);
    following.await.expect("no panic");
}

#[tokio::test]
async fn in_a_mesh_the_sidecar_on_this_machine_names_the_caller() {
    let server = serve(roster::PRODUCT, Mode::Mesh).await;
    let sidecar = Endpoint::from_shared(format!("http://{}", server.address)).expect("a URL");
    for (header, code) in [
        ("By=spiffe://x/ns/souk/sa/product;URI=spiffe://x/ns/souk/sa/order", Code::Unimplemented),
        ("URI=spiffe://x/ns/souk/sa/user", Code::PermissionDenied),
        ("URI=spiffe://x/ns/other/sa/order", Code::PermissionDenied),
        ("URI=spiffe://y/ns/souk/sa/order", Code::PermissionDenied),
        ("URI=spiffe://x/ns/souk/sa/order,URI=spiffe://x/ns/souk/sa/user", Code::PermissionDenied),
    ] {
        let said = connect_and_call(&sidecar, QUOTE, &[("x-forwarded-client-cert", header)]).await;
        assert_eq!(said.ok(), Some(code), "{header}");
    }
    assert_eq!(connect_and_call(&sidecar, GET, &[]).await.ok(), Some(Code::PermissionDenied), "nobody is named");
}

/// They are given up for later ones, not only when their time is over.
#[tokio::test]
async fn connections_that_send_nothing_do_not_keep_out_others() {
    let log = Log::keep();
    let server = serve(roster::PRODUCT, Mode::Mutual).await;
    let mut silent = vec![];
    for _ in 0..1_100 {
        silent.push(TcpStream::connect(server.address).await.expect("it connects"));
    }
    let said = connect_and_call(&server.client_of("order"), QUOTE, &[]).await;
    assert_eq!(said.ok(), Some(Code::Unimplemented));
    assert!(!log.find("too many later connections").is_empty());
}

#[tokio::test]
async fn without_a_prefix_there_is_no_mesh() {
    let settings = Tls { mode: Mode::Mesh, mesh_prefix: None, directory: ".".into(), callers: vec![] };
    let said = Certificates::new(&settings).of("order").expect_err("whose callers?");
    assert!(said.starts_with("SOUK_TLS_MESH_PREFIX: "), "{said}");
}

#[tokio::test]
async fn in_a_mesh_another_machine_is_not_believed() {
    let kit = Kit::new();
    let mut role = chassis::Role::new(roster::PRODUCT, &kit.context);
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let theirs = Connection::new(theirs, Origin::Unverified);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs)).chain(tokio_stream::pending());
    let server = chassis::boot::server::serve(&mut role, &kit.context, incoming, CancellationToken::new());
    let (_health, server) = server.await.expect("it can be served");
    tokio::spawn(server);
    let mut ours = Some(hyper_util::rt::TokioIo::new(ours));
    let connector = tower::service_fn(move |_| {
        std::future::ready(ours.take().ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from_static("http://souk.test").connect_with_connector(connector).await.expect("a pipe");
    for path in [QUOTE, GET] {
        let said = call(channel.clone(), path, &[("x-forwarded-client-cert", "URI=spiffe://souk/order")]).await;
        assert_eq!(said.ok(), Some(Code::PermissionDenied), "{path}");
    }
}

#[test]
fn files_that_are_bad_are_named() {
    let folder = pki();
    let load = |role: &'static str| {
        let settings =
            Tls { mode: Mode::Mutual, mesh_prefix: None, directory: folder.path().to_owned(), callers: vec![] };
        Certificates::new(&settings).of(role).expect_err("a file is bad")
    };
    let authority = Authority::open(folder.path()).expect("it is there");
    authority.issue("user", Validity::over()).expect("a certificate");
    let copy = |from: &str, to: &str| std::fs::copy(folder.path().join(from), folder.path().join(to)).expect("copied");
    copy("edge.crt", "product.crt");
    copy("edge.key", "inventory.key");
    std::fs::remove_file(folder.path().join("order.key")).expect("it was there");
    for (role, file) in
        [("user", "user.crt"), ("product", "product.crt"), ("inventory", "inventory.key"), ("order", "order.key")]
    {
        let said = load(role);
        assert!(said.starts_with("SOUK_TLS_DIRECTORY: ") && said.contains(file), "{role}: {said}");
    }
}

#[tokio::test]
async fn a_role_of_this_machine_is_asked_for_its_health() {
    for mode in [Mode::Mutual, Mode::Mesh] {
        let server = serve(roster::ORDER, mode).await;
        let health = async |role| {
            let asked = health_of(role, server.address, &server.certificates).await;
            asked.map_err(|error| error.to_string())
        };
        assert_eq!(health(roster::ORDER).await, Ok(()), "{mode:?}");
        server.health.set_service_status("", ServingStatus::NotServing).await;
        let why = health(roster::ORDER).await.expect_err("it does not serve");
        assert_eq!(why, format!("order at {} is NOT_SERVING", server.address), "{mode:?}");
    }
}

#[tokio::test]
async fn the_health_of_a_role_is_only_its_own() {
    let server = serve(roster::ORDER, Mode::Mutual).await;
    let another = health_of(roster::PAYMENT, server.address, &server.certificates).await;
    let why = another.expect_err("the order service listens there").to_string();
    assert!(why.contains("is not reached"), "{why}");
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("an address");
    let none = health_of(roster::ORDER, free, &server.certificates).await.expect_err("nothing listens").to_string();
    assert!(none.contains("Connection refused"), "{none}");
}
