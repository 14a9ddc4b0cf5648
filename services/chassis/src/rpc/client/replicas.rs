//! The replicas of a peer: all addresses of its hosts, whose names are resolved again and again. Each has its own connection and
//! circuit breaker. Calls go to the replica with the fewest running calls; one that failed is left for a while.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Error};
use tower::ServiceExt;

use crate::boot::metrics::{self, ByPeer};
use crate::rpc::breaker::{Attempt, Breaker, CircuitOpen};
use crate::rpc::client::Host;
use crate::tls::connect::Connector;

/// How often a name is resolved.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// The pause between two resolutions while calls fail.
const RESOLVE_PAUSE: Duration = Duration::from_millis(200);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Further addresses of a name are not used.
const MOST_REPLICAS: usize = 100;
/// A replica is left for this time per failure in a row.
const LEAVE_FOR: Duration = Duration::from_secs(1);
const LEAVE_FOR_AT_MOST: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

static REPLICAS: LazyLock<Family<ByPeer, Gauge>> =
    LazyLock::new(|| metrics::register("peer_replicas", "Addresses of a peer", Family::default()));
static UNRESOLVED: LazyLock<Family<ByPeer, Counter>> = LazyLock::new(|| {
    metrics::register("peer_unresolved", "Times that the name of a peer was not resolved", Family::default())
});

/// Resolves a host and a port.
pub(super) type Resolve = Box<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

pub(super) fn lookup() -> Resolve {
    Box::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Also with an error.
    Responded,
    /// It is unreachable or unavailable.
    Failed,
    TimedOut,
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) address: SocketAddr,
    /// Which of the hosts has this address.
    host: usize,
    channel: Channel,
    breaker: Arc<Breaker>,
    running: AtomicUsize,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// In a row.
    failures: u32,
    left_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Replicas {
    peer: &'static str,
    hosts: Vec<(Host, Connector)>,
    all: watch::Sender<Arc<[Arc<Replica>]>>,
    /// Wakes the task that resolves the name.
    doubt: Arc<Notify>,
    next: AtomicUsize,
}

impl Replicas {
    /// Resolves the names until this is dropped.
    pub(super) fn follow(peer: &'static str, hosts: Vec<(Host, Connector)>, resolve: Resolve) -> Arc<Self> {
        let (all, doubt) = (watch::Sender::new(Arc::default()), Arc::new(Notify::new()));
        let replicas = Self { peer, hosts, all, doubt: doubt.clone(), next: AtomicUsize::new(0) };
        let replicas = Arc::new(replicas);
        tokio::spawn(keep_resolving(Arc::downgrade(&replicas), resolve, doubt));
        replicas
    }

    /// All replicas, as soon as there is one.
    pub(super) async fn known(&self) -> Arc<[Arc<Replica>]> {
        let mut all = self.all.subscribe();
        let known = all.wait_for(|all| !all.is_empty()).await;
        known.expect("we have the sender").clone()
    }

    /// The replica for a call with this timeout, if possible not one of those that it visited.
    pub(super) fn pick(
        &self,
        all: &[Arc<Replica>],
        visited: &[SocketAddr],
        timeout: Duration,
    ) -> Result<(Arc<Replica>, Attempt), CircuitOpen> {
        let (now, first) = (Instant::now(), self.next.fetch_add(1, Ordering::Relaxed));
        let in_turn = (0..all.len()).map(|at| &all[first.wrapping_add(at) % all.len()]);
        let mut in_turn: Vec<_> = in_turn.collect();
        // The sort is stable: among equals, each has its turn.
        in_turn.sort_by_key(|replica| {
            (visited.contains(&replica.address), replica.is_left(now), replica.running.load(Ordering::Relaxed))
        });
        let mut admitted = in_turn.into_iter().filter_map(|it| Some((it.clone(), it.breaker.try_begin(timeout).ok()?)));
        admitted.next().ok_or_else(|| CircuitOpen::refuse(self.peer))
    }

    pub(super) fn record(&self, replica: &Replica, attempt: Attempt, outcome: Outcome) {
        let mut health = replica.health();
        match outcome {
            Outcome::Responded => {
                *health = Health::default();
                return attempt.succeeded();
            }
            Outcome::Failed => attempt.failed(),
            Outcome::TimedOut => attempt.timed_out(),
        }
        health.failures = health.failures.saturating_add(1);
        health.left_until = Some(Instant::now() + (LEAVE_FOR * health.failures).min(LEAVE_FOR_AT_MOST));
        self.doubt.notify_one();
    }

    /// Replicas that stay keep their connections; calls to those that are gone end normally.
    fn replace(&self, addresses: BTreeMap<SocketAddr, usize>) {
        let before = self.all.borrow().clone();
        let all: Arc<[_]> = addresses
            .into_iter()
            .take(MOST_REPLICAS)
            .map(|(address, host)| {
                let known = before.iter().find(|replica| (replica.address, replica.host) == (address, host)).cloned();
                known.unwrap_or_else(|| Arc::new(Replica::new(address, host, &self.hosts[host])))
            })
            .collect();
        REPLICAS.get_or_create(&ByPeer::new(self.peer)).set(all.len() as i64);
        self.all.send_replace(all);
    }
}

async fn keep_resolving(replicas: Weak<Replicas>, resolve: Resolve, doubt: Arc<Notify>) {
    let mut is_resolved = true;
    loop {
        let Some(known) = replicas.upgrade() else { return };
        let resolved = known.hosts.iter().map(|(host, _)| async {
            let resolved = timeout(RESOLVE_TIMEOUT, resolve(host.name.clone(), host.port)).await;
            match resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(addresses) if addresses.is_empty() => Err("it has no address".to_owned()),
                Ok(addresses) => Ok(addresses),
                Err(error) => Err(error.to_string()),
            }
        });
        let (mut addresses, mut failure) = (BTreeMap::new(), None);
        for (host, resolved) in join_all(resolved).await.into_iter().enumerate() {
            match resolved {
                Ok(found) => addresses.extend(found.into_iter().map(|address| (address, host))),
                Err(error) => {
                    let last = known.all.borrow().clone();
                    let last = last.iter().filter(|replica| replica.host == host);
                    addresses.extend(last.map(|replica| (replica.address, host)));
                    failure = Some((host, error));
                }
            }
        }
        known.replace(addresses);
        if let Some((host, error)) = &failure {
            let (peer, host) = (known.peer, &known.hosts[*host].0.name);
            UNRESOLVED.get_or_create(&ByPeer::new(peer)).inc();
            if is_resolved {
                tracing::warn!(peer, host, error, "the name of a peer is not resolved; its last addresses stay in use");
            }
        }
        is_resolved = failure.is_none();
        // Without an address, calls wait.
        let is_unknown = known.all.borrow().is_empty();
        drop(known);
        sleep(RESOLVE_PAUSE).await;
        if !is_unknown {
            // Without a doubt, it is resolved later.
            let _ = timeout(RESOLVE_EVERY, doubt.notified()).await;
        }
    }
}

impl Replica {
    fn new(address: SocketAddr, host: usize, (of, connector): &(Host, Connector)) -> Self {
        // tonic would refuse https here, as the connector encrypts, and not tonic.
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a host and a port");
        let endpoint = endpoint
            .origin(of.uri.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            // A connection to a replica that hangs is replaced within four seconds.
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2));
        let peer = connector.peer;
        let connector = connector.clone();
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let connector = connector.clone();
            async move { connector.connect(address).await.map(TokioIo::new) }
        }));
        let (running, health) = (AtomicUsize::new(0), Mutex::default());
        Self { address, host, channel, breaker: Breaker::new(peer, address), running, health }
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let _running = Running::begin(&self.running);
        self.channel.clone().oneshot(request).await
    }

    fn is_left(&self, now: Instant) -> bool {
        self.health().left_until.is_some_and(|until| until > now)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("nothing panics while it holds this lock")
    }
}

/// Counts a call until it ends or is dropped.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn begin(running: &'a AtomicUsize) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
