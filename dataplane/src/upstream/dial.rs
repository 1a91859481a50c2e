//! TCP connections to endpoints, and the local ports that they need.
//!
//! In: an endpoint that was chosen. Out: a connection to it, or to another endpoint of its backend where no local port is left for this one.
//! A connection is known by both its ends, so that one address of ours has at most `net.ipv4.ip_local_port_range` (28,232 ports by default) to
//! one endpoint. More sockets than that need more endpoints, or more source addresses (`--backend-source-address`), which are tried in turn.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::yield_now;

use super::BackendTls;
use crate::balance::Chosen;
use crate::metrics::Metrics;
use crate::names::has_route;
use crate::reject::Reject;

/// An address that connections to backends cannot come from.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot connect from the --backend-source-address {address}; it must be an address of this machine"
)]
pub struct SourceError {
    address: IpAddr,
    source: io::Error,
}

/// Connects to backends.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// Where connections come from, by family; empty: as the system chooses.
    ipv4: Vec<IpAddr>,
    ipv6: Vec<IpAddr>,
    pub(crate) tls: BackendTls,
    pub(crate) metrics: Arc<Metrics>,
}

impl Dialer {
    /// Connects from `sources`, or as the system chooses where none is of an endpoint's family.
    ///
    /// # Errors
    /// If one of them is not this machine's.
    pub(crate) fn new(
        sources: &[IpAddr],
        tls: BackendTls,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SourceError> {
        // IPv4 in IPv6 clothes reaches no endpoint with an IPv6 address.
        let sources = sources.iter().map(IpAddr::to_canonical);
        for address in sources.clone() {
            socket_from(address).map_err(|source| SourceError { address, source })?;
        }
        let (ipv4, ipv6) = sources.partition(IpAddr::is_ipv4);
        Ok(Self {
            ipv4,
            ipv6,
            tls,
            metrics,
        })
    }

    /// A connection to the endpoint that was chosen. Where no port is left for it, another endpoint of its backend is chosen instead.
    pub(super) async fn connect(&self, chosen: &mut Chosen) -> Result<TcpStream, Reject> {
        loop {
            let address = chosen.place.address();
            let error = match self.dial(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => error,
            };
            tracing::debug!(%address, %error, "no connection to the endpoint");
            // The same error says that this machine has no address of the endpoint's family.
            if !is_out_of_ports(&error) || !has_route(address.ip()) {
                return Err(Reject::Unreachable);
            }
            if !chosen.go_elsewhere() {
                return Err(Reject::NoLocalPort);
            }
            self.metrics
                .upstream_connect_failed(Reject::NoLocalPort.label());
            // The system has searched all its ports, milliseconds in which it waited for nothing: others and the timeout come in between.
            yield_now().await;
        }
    }

    /// Tries the source addresses in turn while they have no port left.
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let sources = match address {
            SocketAddr::V4(_) => &self.ipv4,
            SocketAddr::V6(_) => &self.ipv6,
        };
        if sources.is_empty() {
            return TcpStream::connect(address).await;
        }
        // Each its share, and no search through the ports of one that is used up for every connection.
        let first = fastrand::usize(..sources.len());
        let (later, sooner) = sources.split_at(first);
        let mut dialled = Err(io::ErrorKind::AddrNotAvailable.into());
        for &source in sooner.iter().chain(later) {
            dialled = match socket_from(source) {
                Ok(socket) => socket.connect(address).await,
                Err(error) => Err(error),
            };
            if !dialled.as_ref().is_err_and(is_out_of_ports) {
                break;
            }
        }
        dialled
    }
}

/// EADDRNOTAVAIL: of connect(2) if no port is left, or no address of the family is here; of bind(2) if the machine has lost the address.
fn is_out_of_ports(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// A socket that will connect from `source`.
fn socket_from(source: IpAddr) -> io::Result<TcpSocket> {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Without it a port is taken for all destinations at once (ip(7)).
    #[cfg(target_os = "linux")]
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::IpBindAddressNoPort,
        &true,
    )?;
    socket.bind(SocketAddr::new(source, 0))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn dialer(sources: &[&str]) -> Result<Dialer, SourceError> {
        let sources: Vec<_> = sources.iter().map(|text| text.parse().unwrap()).collect();
        let tls = BackendTls::new(None).unwrap();
        Dialer::new(&sources, tls, Arc::new(Metrics::new()))
    }

    /// From where `dialer` comes to a listener here.
    async fn comes_from(dialer: &Dialer) -> IpAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialling = dialer.dial(listener.local_addr().unwrap());
        let (accepted, dialled) = tokio::join!(listener.accept(), dialling);
        dialled.unwrap();
        accepted.unwrap().1.ip()
    }

    #[tokio::test]
    async fn connections_come_from_each_source_address_and_others_of_their_family_only() {
        let both = dialer(&["127.0.0.2", "127.0.0.3"]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            seen.insert(comes_from(&both).await.to_string());
        }
        assert_eq!(Vec::from_iter(seen), ["127.0.0.2", "127.0.0.3"]);

        let mapped = dialer(&["::ffff:127.0.0.4"]).unwrap();
        assert_eq!(comes_from(&mapped).await.to_string(), "127.0.0.4");

        let mut other = dialer(&[]).unwrap();
        other.ipv6.push("::1".parse().unwrap());
        assert_eq!(comes_from(&other).await.to_string(), "127.0.0.1");
    }

    /// A backend that waits for the ACK of its 101 before it says more (Nagle's algorithm) must not wait for a timer of 40 ms.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_a_backend_says_first_is_acknowledged_at_once() {
        use tokio::io::AsyncWriteExt as _;

        for sources in [&[][..], &["127.0.0.2"]] {
            let dialer = dialer(sources).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut dialled = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
            dialled.write_all(b"request").await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            accepted.write_all(b"answer").await.unwrap();
            dialled.readable().await.unwrap();
            assert!(socket2::SockRef::from(&dialled).tcp_quickack().unwrap());
        }
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_refused_by_name() {
        // For documentation (RFC 5737).
        let refused = dialer(&["127.0.0.2", "192.0.2.1"]).unwrap_err().to_string();
        assert!(
            refused.contains("--backend-source-address 192.0.2.1"),
            "{refused}"
        );
    }
}
