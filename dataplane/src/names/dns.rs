//! One look-up of one name: both address families, from the system's name servers or from the one that the operator named.
//!
//! In: a name, taken as it is, without the search domains of `/etc/resolv.conf`: what a route's author wrote means the same in every
//! namespace. Out: addresses and how long they hold, the evidence that there are none, or a failure, which is no evidence.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use route_table::Hostname;
use tokio::time::timeout;

/// A look-up over all name servers, retries included. Connects to one endpoint have the same by default (`timeouts.connect`).
const LOOK_UP: Duration = Duration::from_secs(5);
/// One question to one name server; two of them, and TCP after a truncated answer, fit into a look-up.
const QUESTION: Duration = Duration::from_secs(2);
/// How often a question is asked again.
const ATTEMPTS: usize = 2;
/// Most addresses that are kept of one name: more than one answer over UDP holds (4 KiB, RFC 6891 §6.2.5).
const MAX_ADDRESSES: usize = 256;

/// What a look-up came to.
#[derive(Debug)]
pub(super) enum Found {
    /// At least one, sorted, each once.
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// The name does not exist, or has no address (RFC 2308 §2).
    Nothing,
    /// Nobody could say.
    Failed(Failure),
}

/// Why nobody could say.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the name servers could not be read from the system")]
    Resolver(#[source] NetError),
    #[error("the look-up failed")]
    LookUp(#[source] NetError),
    #[error("the look-up took longer than {LOOK_UP:?}")]
    Timeout,
}

/// Asks name servers.
#[derive(Debug)]
pub(super) struct Dns {
    /// Nothing: those of the system.
    server: Option<SocketAddr>,
    /// Made anew after a failure: the system's file may have changed.
    resolver: Mutex<Option<TokioResolver>>,
}

impl Dns {
    pub(super) fn new(server: Option<SocketAddr>) -> Self {
        Self {
            server,
            resolver: Mutex::new(None),
        }
    }

    pub(super) async fn look_up(&self, host: &Hostname) -> Found {
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => return Found::Failed(Failure::Resolver(error)),
        };
        // The dot at the end keeps search domains away.
        let name = format!("{host}.");
        let both = async {
            tokio::join!(
                resolver.lookup(name.as_str(), RecordType::A),
                resolver.lookup(name.as_str(), RecordType::AAAA)
            )
        };
        let found = match timeout(LOOK_UP, both).await {
            Ok((v4, v6)) => joined(v4, v6),
            Err(_) => Found::Failed(Failure::Timeout),
        };
        if matches!(found, Found::Failed(_)) {
            *self.resolver.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        found
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut held = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*held {
            return Ok(resolver.clone());
        }
        let mut builder = match self.server {
            Some(server) => only(server),
            None => TokioResolver::builder_tokio()?,
        };
        let options = builder.options_mut();
        options.timeout = QUESTION;
        options.attempts = ATTEMPTS;
        // Who asks here keeps the answer for its time; a second cache would only hide how old it is.
        options.cache_size = 0;
        // The alias in front of the addresses may hold for a shorter time than they do.
        options.preserve_intermediates = true;
        let resolver = builder.build()?;
        *held = Some(resolver.clone());
        Ok(resolver)
    }
}

fn only(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    let config = ResolverConfig::from_name_servers(vec![server]);
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider);
    // Who names a server wants its answers.
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder
}

/// Both families in one. One that failed beside addresses of the other is as good as empty; beside nothing it is no evidence.
fn joined(v4: Result<Lookup, NetError>, v6: Result<Lookup, NetError>) -> Found {
    let mut addresses = Vec::new();
    let mut ttl = u32::MAX;
    let mut failure = None;
    for answer in [v4, v6] {
        match answer {
            Ok(lookup) => {
                for record in lookup.answers() {
                    ttl = ttl.min(record.ttl);
                    addresses.extend(record.data.ip_addr());
                }
            }
            Err(error) if error.is_no_records_found() => {}
            Err(error) => failure = Some(error),
        }
    }
    if let (true, Some(error)) = (addresses.is_empty(), failure) {
        return Found::Failed(Failure::LookUp(error));
    }
    addresses.sort();
    addresses.dedup();
    prefer_reachable(&mut addresses);
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return Found::Nothing;
    }
    Found::Addresses {
        addresses,
        ttl: Duration::from_secs(ttl.into()),
    }
}

/// Leaves out the addresses that this host has no route to, most often those of a family that it does not have; but never all.
/// RFC 6724 §6, rule 1, asks for no more than to try them last, and nobody would try twice here.
fn prefer_reachable(addresses: &mut Vec<IpAddr>) {
    let reachable = addresses.iter().copied().filter(|ip| has_route(*ip));
    let reachable = reachable.collect::<Vec<_>>();
    if !reachable.is_empty() {
        *addresses = reachable;
    }
}

/// Connecting a UDP socket sends nothing; the system only looks for a way.
fn has_route(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}
