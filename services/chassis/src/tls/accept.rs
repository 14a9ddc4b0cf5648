//! The connections of a role's server.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use pin_project_lite::pin_project;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::boot::log_limit::LogLimit;
use crate::boot::metrics::{self, ByRole};
use crate::tls::Identity;
use crate::tls::certificate::Certificate;
use crate::tls::origin::{Origin, Party, UriPrefix};

/// Handshakes at once. For a further one, the oldest is given up: so connections that send nothing do not keep out others.
const HANDSHAKES: usize = 1_024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(20);

static NOT_ACCEPTED: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Errors of the listener of a role, such as too many open files, for which it paused";
    metrics::register("connections_not_accepted", help, Counter::default())
});
static FAILED: LazyLock<Family<ByRole, Counter>> = LazyLock::new(|| {
    let help = "Connections to a role that were closed, as the caller showed no valid certificate in time";
    metrics::register("handshakes_failed", help, Family::default())
});

pin_project! {
    /// A connection, and what it says about who calls.
    #[derive(Debug)]
    pub struct Connection<IO> {
        #[pin]
        io: IO,
        origin: Origin,
    }
}

impl<IO> Connection<IO> {
    pub fn new(io: IO, origin: Origin) -> Self {
        Self { io, origin }
    }
}

/// A connection over TCP, encrypted or not.
pub(crate) type Transport = Either<TlsStream<TcpStream>, TcpStream>;

/// The connections whose callers proved who they are. In a mesh, plain text is accepted, and only this machine is our sidecar. No
/// failed connection ends the stream.
pub fn accept<S>(incoming: S, identity: Identity) -> impl Stream<Item = io::Result<Connection<Transport>>>
where
    S: Stream<Item = io::Result<TcpStream>>,
{
    let (log, listener_log) = (Arc::new(LogLimit::new(1)), Arc::new(LogLimit::new(1)));
    let count = watch::Sender::new(0_usize);
    let connections = incoming.map(move |accepted| {
        let (identity, log, listener_log) = (identity.clone(), log.clone(), listener_log.clone());
        count.send_modify(|count| *count += 1);
        let (mut count, number) = (count.subscribe(), *count.borrow());
        async move {
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    NOT_ACCEPTED.inc();
                    if let Some(left_out) = listener_log.admit() {
                        tracing::error!(%error, left_out, "a connection was not accepted");
                    }
                    tokio::time::sleep(PAUSE).await;
                    return None;
                }
            };
            let certificate = match identity {
                Identity::Certificate(certificate) => certificate,
                Identity::Mesh(prefix) => {
                    let origin = plain_origin(&stream, prefix);
                    return Some(Connection::new(Either::Right(stream), origin));
                }
            };
            let address = stream.peer_addr().ok();
            let outcome = tokio::select! {
                outcome = timeout(HANDSHAKE_TIMEOUT, handshake(stream, &certificate)) => {
                    outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }
                _ = count.wait_for(|count| *count >= number + HANDSHAKES) => {
                    Err(io::Error::other("too many later connections"))
                }
            };
            match outcome {
                Ok(connection) => Some(connection),
                Err(error) => {
                    FAILED.get_or_create(&ByRole::new(certificate.role())).inc();
                    if let Some(left_out) = log.admit() {
                        let (role, address) = (certificate.role(), address.map(tracing::field::display));
                        tracing::info!(role, address, %error, left_out, "a handshake failed");
                    }
                    None
                }
            }
        }
    });
    connections.buffer_unordered(HANDSHAKES + 1).filter_map(|connection| std::future::ready(connection.map(Ok)))
}

/// In a mesh, only this machine is the sidecar.
fn plain_origin(stream: &TcpStream, prefix: UriPrefix) -> Origin {
    match stream.peer_addr() {
        Ok(address) if address.ip().to_canonical().is_loopback() => Origin::Sidecar(prefix),
        _ => Origin::Unverified,
    }
}

async fn handshake(stream: TcpStream, certificate: &Certificate) -> io::Result<Connection<Transport>> {
    let stream = TlsAcceptor::from(certificate.configs().server.clone()).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let party = certificates.first().and_then(Party::of_certificate);
    let party = party.ok_or_else(|| io::Error::other("the certificate names no party"))?;
    Ok(Connection::new(Either::Left(stream), Origin::Certificate(party)))
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}

impl<IO: AsyncRead> AsyncRead for Connection<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite> AsyncWrite for Connection<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
