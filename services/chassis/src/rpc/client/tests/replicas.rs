//! One name, many replicas: real servers, each in a runtime of its own, so that it can be killed or frozen as a process can.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::*;

/// A replica that counts its calls.
struct Server {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

struct Counting(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Health for Counting {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(HealthCheckResponse::default()))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let incoming = {
            let _entered = runtime.enter();
            TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port")
        };
        let address = incoming.local_addr().expect("an address");
        let calls = Arc::new(AtomicUsize::new(0));
        let health = HealthServer::new(Counting(calls.clone()));
        runtime.spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
        Self { address, calls, runtime: Some(runtime) }
    }

    /// All of its connections are closed.
    fn kill(&mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }

    /// Connections stay open and are still accepted, by the kernel, but nothing responds until this is dropped.
    fn freeze(&self) -> mpsc::Sender<()> {
        let (thaw, frozen) = mpsc::channel();
        self.runtime.as_ref().expect("it runs").spawn(async move { frozen.recv() });
        thaw
    }

    async fn serves(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        until(|| self.calls.load(Ordering::Relaxed) > before + 20).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "it never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A peer whose name has these addresses, as they are at the time.
fn peer_at(addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> Peer {
    let addresses = addresses.clone();
    let resolve = move |host: String, _| -> futures_util::future::BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        assert_eq!(host, "test");
        let now = addresses.lock().expect("no panics").clone();
        Box::pin(async move { Ok(now) })
    };
    let connector = Connector { peer: "test", host: "test".try_into().expect("a name"), identity: super::mesh() };
    let host = Host::parse("http", "test:9000").expect("a host");
    Peer::new(Replicas::follow("test", vec![(host, connector)], Box::new(resolve)))
}

async fn read_health(peer: &Peer) -> Result<HealthCheckResponse, Status> {
    let message = HealthCheckRequest { service: String::new() };
    read(Instant::now() + Duration::from_secs(5), message, |request| {
        let mut client = HealthClient::new(peer.clone());
        async move { client.check(request).await }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_while_one_replica_dies_another_freezes_and_a_fourth_appears() {
    let mut servers = [Server::start(), Server::start(), Server::start()];
    let addresses = Arc::new(Mutex::new(servers.iter().map(|server| server.address).collect::<Vec<_>>()));
    let (peer, stop, read) = (peer_at(&addresses), CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let readers: JoinSet<_> = (0..4)
        .map(|_| {
            let (peer, stop, read) = (peer.clone(), stop.clone(), read.clone());
            async move {
                while !stop.is_cancelled() {
                    read_health(&peer).await.expect("another replica responds");
                    read.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .collect();
    for server in &servers {
        server.serves().await;
    }
    servers[0].kill();
    servers[1].serves().await;
    let _frozen = servers[1].freeze();
    let before = read.load(Ordering::Relaxed);
    until(|| read.load(Ordering::Relaxed) > before + 100).await;

    let fourth = Server::start();
    *addresses.lock().expect("no panics") = [servers[1].address, servers[2].address, fourth.address].into();
    fourth.serves().await;
    let known: BTreeSet<_> = peer.replicas().known().await.iter().map(|replica| replica.address).collect();
    assert!(!known.contains(&servers[0].address), "an address that is gone is not used any more");
    stop.cancel();
    readers.join_all().await;
}

#[tokio::test]
async fn a_read_leaves_time_for_another_replica() {
    let (frozen, alive) = (Server::start(), Server::start());
    let _frozen = frozen.freeze();
    let addresses = Arc::new(Mutex::new(vec![frozen.address, alive.address]));
    let peer = peer_at(&addresses);
    for _ in 0..4 {
        read_health(&peer).await.expect("the other replica responds");
    }
    // A replica that failed is left for a while, so that few reads wait for it.
    assert!(alive.calls.load(Ordering::Relaxed) == 4);
}

#[tokio::test]
async fn calls_are_shared_among_replicas() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let addresses = Arc::new(Mutex::new(servers.iter().map(|server| server.address).collect()));
    let peer = peer_at(&addresses);
    for _ in 0..30 {
        read_health(&peer).await.expect("all respond");
    }
    for server in &servers {
        assert_eq!(server.calls.load(Ordering::Relaxed), 10, "in turn, as none is busy");
    }
}

#[tokio::test]
async fn a_name_without_an_address_fails_until_it_has_one() {
    let addresses = Arc::new(Mutex::new(vec![]));
    let peer = peer_at(&addresses);
    let message = HealthCheckRequest { service: String::new() };
    let request = request(Instant::now() + Duration::from_secs(5), message, Route::default());
    let status = HealthClient::new(peer.clone()).check(request).await.expect_err("it has none");
    assert!(matches!(peer_error(&status), Some(PeerError::Unresolved)) && is_lost(&status), "{status:?}");
    let server = Server::start();
    addresses.lock().expect("no panics").push(server.address);
    read_health(&peer).await.expect("it has one");
}

#[test]
fn a_peer_has_one_host_or_several() {
    for (text, hosts) in [
        ("https://product:9003", "product:9003"),
        ("http://127.0.0.1:9003/", "127.0.0.1:9003"),
        ("https://[::1]:9003", "::1:9003"),
        ("https://product-1:9003,product-2:9004", "product-1:9003 product-2:9004"),
    ] {
        let url: Url = text.parse().expect(text);
        let read: Vec<_> = url.hosts.iter().map(|host| format!("{}:{}", host.name, host.port)).collect();
        assert_eq!(read.join(" "), hosts, "{text}");
    }
    for text in
        ["", "product:9003", "ftp://product:1", "https://product", "https://a:1,", "https://a:1/b", "https://a@b:1"]
    {
        let error = text.parse::<Url>().expect_err(text);
        assert!(error.contains("https://product:9003"), "{error}");
    }
}

#[tokio::test]
async fn a_host_without_an_address_leaves_those_of_another() {
    let server = Server::start();
    let peer = in_a_mesh(&format!("http://{},nowhere.invalid:9000", server.address));
    for _ in 0..10 {
        read_health(&peer).await.expect("the other host has one");
    }
}
