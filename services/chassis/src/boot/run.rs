//! Runs roles until SIGTERM or SIGINT. Then they become NOT_SERVING, wait until load balancers send no more calls, finish calls
//! and jobs, and end within the grace period.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use crate::boot::config::Common;
use crate::boot::health::{self, set_serving};
use crate::boot::metrics;
use crate::boot::role::{Context, Role};
use crate::boot::server::{self, ServeError};
use crate::rpc::client;
use crate::tls;

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("cannot listen on {address} ({what}): {source}")]
    Listen { what: String, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{0}")]
    Setting(String),
    #[error("signals cannot be handled: {0}")]
    Signals(io::Error),
    #[error("{0} ended unexpectedly")]
    Died(&'static str),
    #[error("the process did not stop within its grace period")]
    TooSlow,
}

/// Runs roles until a signal. All listeners are bound before anything starts.
pub async fn run(roles: Vec<Role>, config: &Common, context: Context) -> Result<(), BootError> {
    let caller = roles.first().expect("a process has a role").name;
    let user = client::connect_as("SOUK_USER_URL", &context.certificates, caller, roster::USER, &config.user_url);
    let user = user.map_err(BootError::Setting)?;
    let (mut terminate, mut interrupt) = (listen_to(SignalKind::terminate())?, listen_to(SignalKind::interrupt())?);
    let mut listeners = Vec::new();
    for role in &roles {
        listeners.push(bind(role.name, role.listen).await?);
    }
    let admin_listener = bind("admin", config.admin_listen).await?;

    let (stop_serving, stop_working) = (CancellationToken::new(), CancellationToken::new());
    let ready = Arc::new(AtomicBool::new(false));
    let admin = axum::serve(pages_on(admin_listener), admin_pages(ready.clone()));
    let admin = tokio::spawn(admin.with_graceful_shutdown(stop_working.clone().cancelled_owned()).into_future());

    let (mut servers, mut workers, mut watches) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let (mut reporters, mut schemas) = (Vec::new(), Vec::new());
    let verifier = context.verifier.clone().poll(user, stop_working.clone());
    workers.spawn(async move {
        verifier.await;
        "the polling of keys and revoked sessions"
    });
    let certificates = context.certificates.clone().follow(stop_working.clone());
    workers.spawn(async move {
        certificates.await;
        "the reading of certificates"
    });
    for (mut role, listener) in roles.into_iter().zip(listeners) {
        let certificate = context.certificates.of(role.name).map_err(BootError::Setting)?;
        let incoming = tls::accept(calls_on(listener), certificate);
        let (reporter, server) = server::serve(&mut role, &context, incoming, stop_serving.clone()).await?;
        let name = role.name;
        servers.spawn(async move { (name, server.await) });
        reporters.push((reporter.clone(), role.services.clone()));
        let clock = role.clock;
        if let Some((schema, db)) = role.database {
            let clock = clock.clone();
            schemas.push((schema, db.clone()));
            watches.spawn(async move { health::follow(name, &role.services, &reporter, &db, &clock).await });
        }
        for job in role.jobs {
            for _ in 0..job.workers {
                let (job, stop, clock) = (job.clone(), stop_working.clone(), clock.clone());
                workers.spawn(async move {
                    let name = job.name;
                    // Leases of other replicas must not be compared with another clock than theirs.
                    if stop.run_until_cancelled(clock.known()).await.is_some() {
                        job.run(stop).await;
                    }
                    name
                });
            }
        }
        for (name, task) in role.background {
            let task = task(stop_working.clone());
            workers.spawn(async move {
                task.await;
                name
            });
        }
        tracing::info!(role = name, address = %role.listen, "the role is serving");
    }
    if !context.verifier.ready_in_time().await {
        tracing::warn!("access tokens cannot be verified yet; only public methods are served until they can");
    }
    let becomes_ready = async {
        for (schema, db) in schemas {
            health::until_migrated(schema, &db).await;
        }
        ready.store(true, Ordering::Relaxed);
        std::future::pending::<Infallible>().await
    };

    let outcome = tokio::select! {
        never = becomes_ready => match never {},
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = workers.join_next() => Err(BootError::Died(ended.unwrap_or("a background task that panicked"))),
        Some(ended) = servers.join_next() => Err(BootError::Died(ended.map_or("a server that panicked", |(name, _)| name))),
    };

    tracing::info!("the process is stopping");
    let leave = async {
        ready.store(false, Ordering::Relaxed);
        // Probes must not set SERVING again.
        watches.shutdown().await;
        for (reporter, services) in &reporters {
            set_serving(reporter, services, ServingStatus::NotServing).await;
        }
        tokio::time::sleep(config.drain).await;
        stop_serving.cancel();
        // Connections close when their streams have ended.
        context.streams.drain();
        while servers.join_next().await.is_some() {}
        context.tasks.close();
        context.tasks.wait().await;
        stop_working.cancel();
        while workers.join_next().await.is_some() {}
        // Open requests to admin pages do not delay the end.
        admin.abort();
    };
    match tokio::time::timeout(config.grace, leave).await {
        Ok(()) => outcome,
        Err(_) => outcome.and(Err(BootError::TooSlow)),
    }
}

fn admin_pages(ready: Arc<AtomicBool>) -> axum::Router {
    let readiness = move || async move {
        if ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    };
    let page = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    axum::Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(move || async move { (page, metrics::render()) }))
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, BootError> {
    TcpListener::bind(address).await.map_err(|source| BootError::Listen { what: what.to_owned(), address, source })
}

/// Without Nagle's algorithm: a response is written in several parts, and the kernel would delay the last one until the others
/// are acknowledged, which may take a peer 40 ms. tonic's own setting applies only to listeners that tonic creates.
fn calls_on(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// The same, for pages.
fn pages_on(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    })
}

fn listen_to(kind: SignalKind) -> Result<tokio::signal::unix::Signal, BootError> {
    signal(kind).map_err(BootError::Signals)
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn connections_are_accepted_without_nagles_algorithm() {
        let free = async || bind("test", ([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let calls = free().await;
        let _client = TcpStream::connect(calls.local_addr().expect("an address")).await.expect("it listens");
        let accepted = calls_on(calls).next().await.expect("the client connected").expect("a connection");
        assert!(accepted.nodelay().expect("an option"), "of calls");

        let pages = free().await;
        let _client = TcpStream::connect(pages.local_addr().expect("an address")).await.expect("it listens");
        let (accepted, _) = pages_on(pages).accept().await;
        assert!(accepted.nodelay().expect("an option"), "of pages");
    }
}
