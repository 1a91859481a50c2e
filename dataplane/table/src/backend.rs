//! Backends: the endpoints behind one port of one Service.
//!
//! Addresses and states only. How many sockets an endpoint carries is live state; it is kept outside the table, keyed by
//! address, and survives swaps.

use std::net::SocketAddr;

/// Most endpoints of one backend; the same as Kubernetes keeps in ten full EndpointSlices.
pub const MAX_ENDPOINTS: usize = 10_000;

/// The endpoints of one port of one Service, sorted by address, each address once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub endpoints: Vec<Endpoint>,
}

/// One address that serves, and whether it takes new sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub state: EndpointState,
}

/// From the conditions of an EndpointSlice endpoint (KEP-1672). An endpoint that does not serve is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// Takes new sockets.
    Ready,
    /// Shutting down: keeps the sockets that it has, takes no new ones.
    Terminating,
}

impl Backend {
    /// The endpoints that take new sockets.
    pub fn ready(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.state == EndpointState::Ready)
            .map(|endpoint| endpoint.address)
    }
}
