//! One look-up of one name: both address families, from the system's name servers or from the one that the operator named.
//!
//! In: a name, taken as it is, without the search domains of `/etc/resolv.conf`: what a route's author wrote means the same in every
//! namespace. Out, for each family: addresses and how long they hold, the evidence that there are none, or a failure, which is no
//! evidence. One family does not wait for the other: there are name servers that say nothing when asked for AAAA (RFC 4074 §4.1).

use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
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
/// How long one family is waited for once the other has addresses. RFC 8305 §3 has 50 ms, for people who watch; an answer that comes
/// later is missed, and its family keeps what it had.
const OTHER_FAMILY: Duration = Duration::from_millis(500);
/// Most addresses that are kept of one name and family: more than one answer over UDP holds (4 KiB, RFC 6891 §6.2.5).
const MAX_ADDRESSES: usize = 256;

/// What a look-up came to: A and AAAA.
pub(super) type Found = [Answer; 2];

/// What was said of one family.
#[derive(Debug)]
pub(super) enum Answer {
    /// At least one, sorted, each once.
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// The name does not exist, or has no such address (RFC 2308 §2).
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
    #[error("nobody answered in time")]
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
            Err(error) => {
                let failed = |error| Answer::Failed(Failure::Resolver(error));
                return [failed(error.clone()), failed(error)];
            }
        };
        // The dot at the end keeps search domains away.
        let name = format!("{host}.");
        let ask = async |family| {
            let answer = timeout(LOOK_UP, resolver.lookup(name.as_str(), family)).await;
            answer.map_or(Answer::Failed(Failure::Timeout), judged)
        };
        let found = both(ask(RecordType::A), ask(RecordType::AAAA)).await;
        if let [Answer::Failed(_), Answer::Failed(_)] = found {
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

/// Both answers; of one with addresses the other takes no more than [`OTHER_FAMILY`].
async fn both(v4: impl Future<Output = Answer>, v6: impl Future<Output = Answer>) -> Found {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    tokio::select! {
        first = &mut v4 => {
            let second = beside(&first, v6).await;
            [first, second]
        }
        second = &mut v6 => {
            let first = beside(&second, v4).await;
            [first, second]
        }
    }
}

async fn beside(known: &Answer, other: impl Future<Output = Answer>) -> Answer {
    match known {
        Answer::Addresses { .. } => timeout(OTHER_FAMILY, other)
            .await
            .unwrap_or(Answer::Failed(Failure::Timeout)),
        Answer::Nothing | Answer::Failed(_) => other.await,
    }
}

fn judged(answer: Result<Lookup, NetError>) -> Answer {
    let lookup = match answer {
        Ok(lookup) => lookup,
        Err(error) if error.is_no_records_found() => return Answer::Nothing,
        Err(error) => return Answer::Failed(Failure::LookUp(error)),
    };
    // Aliases before the addresses hold for a time of their own.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min();
    let addresses = lookup.answers().iter();
    let addresses = addresses.filter_map(|record| record.data.ip_addr());
    let mut addresses = addresses.collect::<Vec<_>>();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return Answer::Nothing;
    }
    Answer::Addresses {
        addresses,
        ttl: Duration::from_secs(ttl.unwrap_or_default().into()),
    }
}

/// Leaves out the addresses that this host has no route to, most often those of a family that it does not have; but never all.
/// RFC 6724 §6, rule 1, asks for no more than to try them last, and nobody would try twice here.
pub(super) fn prefer_reachable(addresses: &mut Vec<IpAddr>) {
    let reachable = addresses.iter().copied().filter(|ip| has_route(*ip));
    let reachable = reachable.collect::<Vec<_>>();
    if !reachable.is_empty() {
        *addresses = reachable;
    }
}

/// Connecting a UDP socket sends nothing; the system only looks for a way.
pub(crate) fn has_route(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}
