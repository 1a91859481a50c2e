//! Addresses, times and limits of one dataplane: built once, passed down.
//!
//! Every queue, buffer and wait of the crate takes its limit from [`Limits`]; the reason for each default stands beside it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use route_table::Loopback;

use crate::open_files::open_file_limit;

/// What the operator sets.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where wss and https are served. `[::]` serves IPv4 too, and falls back to `0.0.0.0` on a host without IPv6.
    pub https_address: SocketAddr,
    /// Where hostnames with `tls.mode: None` are served, and others redirected, refused or served (`tls.plain`).
    pub http_address: SocketAddr,
    /// The port that clients reach `https_address` by; where redirects to https lead.
    pub https_public_port: NonZeroU16,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub status_address: SocketAddr,
    /// How long new connections are still accepted after drain began, while load balancers take note of the readiness.
    pub drain_delay: Duration,
    /// How long sockets have to close after that, before they are cut.
    pub drain_timeout: Duration,
    /// Proxies whose X-Forwarded-* fields and request id are believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// Peers whose connections must begin with a PROXY header. Empty: none is read from anybody.
    pub proxy_protocol_peers: Vec<IpNet>,
    /// Whether an external backend may be on this machine.
    pub loopback: Loopback,
    /// Who is asked for the addresses of external backends; those of the system if nobody is named.
    pub resolver: Option<SocketAddr>,
    /// Authorities, in PEM, for TLS to external backends that name none; those of the system if there is no file.
    pub backend_ca_file: Option<PathBuf>,
    /// Where connections to backends come from, each of its family. Empty: as the system chooses.
    pub backend_source_addresses: Vec<IpAddr>,
    pub limits: Limits,
}

/// Named limits with their defaults.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once, over both listeners.
    pub connections: usize,
    /// TLS handshakes that are computed at once; the operator's `--max-concurrent-tls-handshakes`.
    pub tls_handshakes: usize,
    /// TLS handshakes that wait for that.
    pub tls_handshake_queue: usize,
    /// How long one may wait for it.
    pub tls_handshake_wait: Duration,
    /// From accept to the end of the first request head, TLS handshake included. No stage resets it.
    pub head: Duration,
    /// How long a kept-alive connection may wait for the head of its next request.
    pub keep_alive: Duration,
    /// Bytes of a request head, and of a backend's answer head.
    pub head_bytes: usize,
    /// Bytes of a request target: its path and query, and the authority in absolute-form.
    pub target_bytes: usize,
    /// Fields in a head.
    pub head_fields: usize,
    /// How long a client may take no byte of what is written before a rule is known, or of a refusal; afterwards it is the rule's
    /// `timeouts.send`.
    pub send: Duration,
    /// How long a client may pause within a body that it sends.
    pub request_body: Duration,
    /// How long what a client still sends of a body is read past, once it was answered without it.
    pub unread_body: Duration,
    /// How long `Expect: 100-continue` waits for the backend's word before the client is told to go on.
    pub expect: Duration,
    /// How long an upstream connection waits for its next request.
    pub upstream_idle: Duration,
    /// Upstream connections that wait, per endpoint.
    pub upstream_idle_per_endpoint: usize,
    /// Upstream connections that wait, in all.
    pub upstream_idle_connections: usize,
    /// How long the second half of a relay may go on after the first ended; the operator's `--half-close-timeout`.
    pub half_close: Duration,
    /// How long a backend has to answer the Close of a drain once its client is gone.
    pub close_linger: Duration,
    /// Pause before the next accept after the system refused one.
    pub accept_pause: Duration,
    /// Connections on the status listener at once.
    pub status_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let open_files = open_file_limit();
        Self {
            connections: connections_for(open_files),
            tls_handshakes: half_of_the_cores(),
            // What one slot computes in the time to wait, with keys of RSA-2048; each waits with its ClientHello, 2 KiB of a
            // browser and 32 KiB at most.
            tls_handshake_queue: 4096,
            // Clients give up after 5 to 10 s, and need the rest of that for the round trips of the handshake.
            tls_handshake_wait: Duration::from_secs(3),
            // A browser on a bad line needs two round trips for TLS and one for the head; nobody needs ten seconds.
            head: Duration::from_secs(10),
            // nginx's keepalive_timeout is 75 s and browsers give up idle connections later than this.
            keep_alive: Duration::from_secs(75),
            // Cookies and tokens of real logins reach 8 KiB; nginx allows 4 x 8 KiB in all.
            head_bytes: 32 * 1024,
            // RFC 9110 §4.1 asks for 8000 at least; nginx allows one of its buffers of 8 KiB.
            target_bytes: 8 * 1024,
            // Twice what a browser behind two proxies and a CDN sends.
            head_fields: 128,
            // nginx's send_timeout.
            send: Duration::from_mins(1),
            // nginx's client_body_timeout.
            request_body: Duration::from_mins(1),
            // nginx's lingering_timeout; who has read the answer ends sooner.
            unread_body: Duration::from_secs(5),
            // What curl waits itself before it goes on; RFC 9110 §10.1.1 wants no indefinite wait.
            expect: Duration::from_secs(1),
            // Node, uvicorn and Apache close an idle connection after 5 s (nginx after 75 s): who asks in the last moment meets a
            // connection that is already ended, and a POST cannot be asked twice.
            upstream_idle: Duration::from_secs(4),
            // nginx's recipes say `keepalive 32`; what a burst leaves over costs the backend memory for nothing.
            upstream_idle_per_endpoint: 32,
            upstream_idle_connections: idle_connections_for(open_files),
            // A closing handshake (RFC 6455 §7.1.1) takes a round trip; ten seconds is ten bad ones.
            half_close: Duration::from_secs(10),
            // The backend is near, and nobody waits for its answer any more.
            close_linger: Duration::from_secs(1),
            accept_pause: Duration::from_millis(100),
            // A kubelet, two Prometheus servers and a person.
            status_connections: 32,
        }
    }
}

/// Files that are not client connections or their backends: listeners, epoll, logs, status connections.
const RESERVED_FILES: u64 = 128;

/// Idle upstream connections: one file in 32, so that they never take the place of clients; a thousand serve any rate, because one is
/// idle only between two requests.
fn idle_connections_for(open_files: u64) -> usize {
    let share = open_files.saturating_sub(RESERVED_FILES) / 32;
    usize::try_from(share).unwrap_or(usize::MAX).clamp(8, 1024)
}

/// A connection needs two files, its own and that of its backend.
fn connections_for(open_files: u64) -> usize {
    let idle = idle_connections_for(open_files) as u64;
    let connections = open_files.saturating_sub(RESERVED_FILES + idle) / 2;
    // A table of a billion slots is no limit at all; a million sockets is what one pod is measured at.
    usize::try_from(connections)
        .unwrap_or(usize::MAX)
        .clamp(16, 1_000_000)
}

/// The other half is for those who are connected, whoever comes. One core computes thousands of handshakes a second with ECDSA keys, and about
/// a thousand with RSA-2048, so that half of the cores still takes a crowd back within seconds.
fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_their_backends_and_a_reserve() {
        assert_eq!(connections_for(32 * 640 + 128), 31 * 640 / 2);
        assert_eq!(connections_for(0), 16);
        assert_eq!(connections_for(u64::MAX), 1_000_000);
        assert_eq!(idle_connections_for(32 * 640 + 128), 640);
        assert_eq!(idle_connections_for(0), 8);
        assert_eq!(idle_connections_for(u64::MAX), 1024);
    }
}
