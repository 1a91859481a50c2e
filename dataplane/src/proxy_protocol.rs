//! The PROXY protocol: whom a connection comes from, said before anything else: to us by the load balancer in front, and by us to a
//! backend that wants it.
//!
//! In: a connection that was just accepted, and the ranges whose connections must begin with a header. From there one without it,
//! or with garbage, is closed: it could be anybody's. From elsewhere nothing is read: a header would be a stranger's claim, and is
//! bytes like any others.

mod header;

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use route_table::ProxyProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(crate) use header::Ends;
use header::{Malformed, Parsed, encode, parse};

/// Why a connection that must begin with a header is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the connection ended before its PROXY header")]
    Ended,
    #[error("the connection broke before its PROXY header")]
    Broken(#[source] io::Error),
    #[error("no PROXY header came in time")]
    Timeout,
    #[error("the dataplane is stopping, and no PROXY header has come")]
    Stopping,
}

impl HeaderError {
    /// The `outcome` label of the metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Missing) => "missing",
            Self::Malformed(Malformed::Form) => "malformed",
            Self::Malformed(Malformed::TooLong) => "too_long",
            Self::Ended | Self::Broken(_) => "ended",
            Self::Timeout => "timeout",
            Self::Stopping => "stopping",
        }
    }
}

/// The header that a connection to a backend begins with. What it names holds for all that follows, so such a connection carries
/// nothing of another client: it may not stand in a pool.
#[derive(Debug)]
pub(crate) struct Preface(Vec<u8>);

impl Preface {
    /// The header for a client with these ends.
    pub(crate) fn new(version: ProxyProtocol, ends: Ends) -> Self {
        Self(encode(version, ends))
    }

    /// Writes it to a connection that was just made, before TLS if there is any.
    ///
    /// # Errors
    /// If the connection breaks; the caller sets the deadline.
    pub(crate) async fn write(&self, tcp: &mut TcpStream) -> io::Result<()> {
        tcp.write_all(&self.0).await
    }
}

/// Whether connections of `peer` must begin with a header.
pub(crate) fn is_due(peer: SocketAddr, ranges: &[IpNet]) -> bool {
    ranges.iter().any(|range| range.contains(&peer.ip()))
}

/// Takes the header from the stream, and not a byte more. Nothing is a peer that speaks for itself.
pub(crate) async fn take(
    tcp: &mut TcpStream,
    deadline: Instant,
    stopping: &CancellationToken,
) -> Result<Option<Ends>, HeaderError> {
    tokio::select! {
        taken = timeout_at(deadline, take_whole(tcp)) => taken.unwrap_or(Err(HeaderError::Timeout)),
        () = stopping.cancelled() => Err(HeaderError::Stopping),
    }
}

async fn take_whole(tcp: &mut TcpStream) -> Result<Option<Ends>, HeaderError> {
    let mut received = Vec::new();
    loop {
        match parse(&received)? {
            Parsed::Whole(ends) => return Ok(ends),
            Parsed::More(bytes) => {
                let mut part = (&mut *tcp).take(bytes as u64);
                let read = part.read_buf(&mut received).await;
                if read.map_err(HeaderError::Broken)? == 0 {
                    return Err(HeaderError::Ended);
                }
            }
        }
    }
}
