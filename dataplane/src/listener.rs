//! Listening and accepting.
//!
//! Nothing is accepted while as many clients are connected as may be (`capacity`): who comes then waits in the kernel's queue instead of
//! costing memory here. When the system refuses an accept (no files left), accepting pauses; the log says so at most once a minute.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::connection;
use crate::run::Shared;

/// Length of the kernel's queue of connections that are not accepted yet; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// At most one line about refused accepts in this time.
pub(crate) const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Which of the two listeners a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Tls,
    Plain,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "the {name} address {address} is taken by another process; choose another with --{name}-address"
    )]
    Taken {
        name: &'static str,
        address: SocketAddr,
    },
    #[error("cannot listen on the {name} address {address}; choose another with --{name}-address")]
    Refused {
        name: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A listener and the address that it really got.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    /// Listens on `address`; `[::]` takes IPv4 as well, and is `0.0.0.0` on a host without IPv6.
    pub(crate) fn new(name: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let listening = match listen(address) {
            Err(error)
                if address.ip() == Ipv6Addr::UNSPECIFIED
                    && error.kind() != io::ErrorKind::AddrInUse =>
            {
                listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
            }
            listening => listening,
        };
        let bound = listening.and_then(|listener| {
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { name, address },
            _ => BindError::Refused {
                name,
                address,
                source,
            },
        })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Old connections in TIME_WAIT must not keep a restarted process from its port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until accepting stops.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, side: Side) {
    loop {
        let accepting = async {
            shared.capacity.room().await;
            tokio::select! {
                accepted = listener.accept() => Some(accepted),
                // The other listener took the last place.
                () = shared.capacity.full() => None,
            }
        };
        let accepted = tokio::select! {
            () = shared.stopping.cancelled() => return,
            accepted = accepting => accepted,
        };
        match accepted {
            None => {}
            Some(Ok((tcp, peer))) => {
                let seat = shared.capacity.take();
                shared
                    .tasks
                    .spawn(connection::serve(shared.clone(), side, tcp, peer, seat));
            }
            Some(Err(error)) => {
                shared.metrics.accept_error();
                if shared.refused_accepts.may_tell() {
                    tracing::warn!(%error, "the system refused a connection; accepting pauses");
                }
                // Without a free file the next accept would fail at once, and this would only spin.
                sleep(shared.config.limits.accept_pause).await;
            }
        }
    }
}
