//! Connections to peers.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use crate::tls::Identity;
use crate::tls::origin::Party;

pub(crate) type Transport = Either<TlsStream<TcpStream>, TcpStream>;

/// Opens connections to one peer.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) peer: &'static str,
    /// The host in the URL of the peer, which its certificate must have.
    pub(crate) host: ServerName<'static>,
    /// Ours.
    pub(crate) identity: Identity,
}

impl Connector {
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Transport> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Identity::Certificate(certificate) = &self.identity else { return Ok(Either::Right(stream)) };
        let connector = TlsConnector::from(certificate.configs().client.clone());
        let stream = connector.connect(self.host.clone(), stream).await?;
        // Its name could be that of another party on the same host.
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        match certificates.first().and_then(Party::of_certificate) {
            Some(party) if party.name() == self.peer => Ok(Either::Left(stream)),
            _ => Err(io::Error::other(format!("its certificate is not that of spiffe://souk/{}", self.peer))),
        }
    }
}
