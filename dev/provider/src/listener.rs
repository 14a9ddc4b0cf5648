//! Accepts at most [`CONNECTIONS`] at once; others wait in the kernel's queue. With a certificate, they speak TLS.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Timeout, timeout};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

const CONNECTIONS: usize = 1_024;
/// A client that takes longer is disconnected, as it would hold one of the connections.
const HANDSHAKE: Duration = Duration::from_secs(10);

pub(crate) struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    handshake: Duration,
}

pub(crate) struct Connection {
    stream: Stream,
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    /// Until the first read has ended it. A slow client delays no other, as the listener does not wait for it.
    Handshake(Pin<Box<Timeout<Accept<TcpStream>>>>),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Bounded {
    pub(crate) fn new(listener: TcpListener, tls: Option<TlsAcceptor>) -> Bounded {
        Bounded { listener, free: Arc::new(Semaphore::new(CONNECTIONS)), tls, handshake: HANDSHAKE }
    }
}

/// From PEM files: a certificate, and its key.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> io::Result<TlsAcceptor> {
    let invalid = |file: &Path, why: &dyn Display| io::Error::other(format!("{}: {why}", file.display()));
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|why| invalid(certificate, &why))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| invalid(key, &why))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?.with_no_client_auth();
    let config = config.with_single_cert(chain, private).map_err(|why| invalid(certificate, &why))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        // A response is one small write; Nagle's algorithm would only delay it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let stream = match &self.tls {
            Some(tls) => Stream::Handshake(Box::pin(timeout(self.handshake, tls.accept(stream)))),
            None => Stream::Plain(stream),
        };
        (Connection { stream, _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

impl Connection {
    /// What to read from and write to, after the handshake.
    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Wire>>> {
        if let Stream::Handshake(accept) = &mut self.stream {
            let stream = ready!(accept.as_mut().poll(cx)).map_err(io::Error::from)??;
            self.stream = Stream::Tls(Box::new(stream));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Poll::Ready(Ok(Pin::new(stream))),
            Stream::Tls(stream) => Poll::Ready(Ok(Pin::new(stream))),
            Stream::Handshake(_) => unreachable!("it has ended"),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_wire(cx))?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_wire(cx))?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_wire(cx))?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_wire(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_wire(cx))?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::Provider;

    /// With certificates that are made in this folder.
    fn certified(folder: &Path) -> TlsAcceptor {
        stack::pki::ensure(folder).expect("certificates can be made");
        acceptor(&folder.join("provider.crt"), &folder.join("provider.key")).expect("they are good")
    }

    #[tokio::test]
    async fn a_client_that_begins_no_handshake_is_disconnected() {
        let folder = tempfile::tempdir().expect("a folder");
        let (tls, listener) =
            (certified(folder.path()), TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port"));
        let address = listener.local_addr().expect("an address");
        let mut bounded = Bounded { handshake: Duration::from_millis(10), ..Bounded::new(listener, Some(tls)) };
        let _silent = TcpStream::connect(address).await.expect("it listens");
        let (mut connection, _) = bounded.accept().await;
        let ended = connection.read(&mut [0]).await.expect_err("it sent nothing");
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_begins_no_handshake_delays_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (tls, listener) =
            (certified(folder.path()), TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port"));
        let address = listener.local_addr().expect("an address");
        let provider = Provider::open(folder.path().join("ledger")).expect("a new ledger");
        tokio::spawn(provider.serve_over(listener, Some(tls), CancellationToken::new()));

        let _silent = TcpStream::connect(address).await.expect("it listens");
        let mut authorities = RootCertStore::empty();
        authorities
            .add(CertificateDer::from_pem_file(folder.path().join("ca.crt")).expect("PEM"))
            .expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("it has some");
        let config = config.with_root_certificates(authorities).with_no_client_auth();
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = "provider".try_into().expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        stream.write_all(b"GET /_ledger HTTP/1.0\r\n\r\n").await.expect("it is sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("a response");
        assert!(page.starts_with("HTTP/1.0 200") && page.contains(r#""entries":[]"#), "{page}");
    }

    #[test]
    fn a_bad_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        stack::pki::ensure(folder.path()).expect("certificates can be made");
        let refused = |certificate: &str, key: &str| {
            let outcome = acceptor(&folder.path().join(certificate), &folder.path().join(key));
            outcome.err().expect("one is bad").to_string()
        };
        assert!(refused("nothing.crt", "provider.key").contains("nothing.crt"));
        assert!(refused("provider.crt", "nothing.key").contains("nothing.key"));
        assert!(refused("provider.crt", "order.key").contains("provider.crt"), "the key of another");
    }
}
