//! Flags of `ws-ingress-dataplane`, each also an environment variable: `WS_INGRESS_` and the name in capitals.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;

use crate::config::Limits;
use crate::receive::ControllerAddress;

/// Terminates wss and relays WebSockets to backends, by the table that the controller pushes.
#[derive(Debug, Clone, Parser)]
#[command(name = "ws-ingress-dataplane", version, about)]
pub struct Args {
    /// Where the controllers are: the headless Service, or an address. All are dialled until the one that leads answers.
    #[arg(long, env = "WS_INGRESS_CONTROLLER", value_name = "HOST:PORT")]
    pub controller: ControllerAddress,

    /// The controllers' public CA bundle in PEM; read anew at each dial.
    #[arg(long, env = "WS_INGRESS_CA_FILE", value_name = "PATH")]
    pub ca_file: PathBuf,

    /// The pod's projected ServiceAccount token, made for the audience ws-ingress-controller; read anew at each dial.
    #[arg(long, env = "WS_INGRESS_TOKEN_FILE", value_name = "PATH")]
    pub token_file: PathBuf,

    /// Name of this pod, for the controller's log; who the pod is, its token says.
    #[arg(
        long,
        env = "WS_INGRESS_POD_NAME",
        value_name = "NAME",
        default_value = ""
    )]
    pub pod_name: String,

    #[command(flatten)]
    pub listeners: Listeners,

    #[command(flatten)]
    pub proxies: Proxies,

    #[command(flatten)]
    pub externals: Externals,

    #[command(flatten)]
    pub bounds: Bounds,

    /// Address of /healthz, /readyz and /metrics, for the kubelet and Prometheus; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_STATUS_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:9901"
    )]
    pub status_address: SocketAddr,

    /// Loopback address of POST /drain and /debug/table; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_ADMIN_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9900"
    )]
    pub admin_address: SocketAddr,

    /// After SIGTERM, how long new connections are still taken while load balancers notice (units h, m, s, ms).
    #[arg(long, env = "WS_INGRESS_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// After that, how long open sockets have to close before they are cut (units h, m, s, ms).
    #[arg(long, env = "WS_INGRESS_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// Which log lines are written to stderr: error, warn, info or debug, or by module, such as info,dataplane=debug.
    #[arg(
        long,
        env = "WS_INGRESS_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
}

/// How external backends are reached: the same in a cluster and in standalone.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Externals {
    #[expect(clippy::doc_markdown, reason = "clap prints it as it is")]
    /// The one name server that is asked for the addresses of ExternalBackends, for nodes whose own do not know them. Default: those of
    /// /etc/resolv.conf.
    #[arg(long, env = "WS_INGRESS_RESOLVER", value_name = "ADDRESS:PORT")]
    pub resolver: Option<SocketAddr>,

    #[expect(clippy::doc_markdown, reason = "clap prints it as it is")]
    /// Authorities in PEM that TLS to an ExternalBackend without caCertificates is verified with. Default: those of the system.
    #[arg(long, env = "WS_INGRESS_BACKEND_CA_FILE", value_name = "PATH")]
    pub backend_ca_file: Option<PathBuf>,
}

/// Where clients are listened for: the same in a cluster and in standalone, whose other defaults differ.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Listeners {
    /// Address of the TLS listener; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_HTTPS_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:8443"
    )]
    pub https_address: SocketAddr,

    /// Address of the plain listener, for routes with tls.mode None and for what tls.plain says of the others; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_HTTP_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:8080"
    )]
    pub http_address: SocketAddr,

    /// Port under which clients reach the TLS listener: that of the load balancer or Service in front. Redirects to https lead there.
    #[arg(
        long,
        env = "WS_INGRESS_HTTPS_PUBLIC_PORT",
        value_name = "PORT",
        default_value = "443"
    )]
    pub https_public_port: NonZeroU16,
}

/// What may stand between clients and the listeners.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Proxies {
    /// Range of proxies in front of this one, whose X-Forwarded-For, -Proto, -Host, -Port and X-Request-ID are believed; repeat the
    /// flag, or separate several with ','. From anybody else these fields are replaced. Default: nobody is believed.
    #[arg(
        long = "trusted-proxy-cidr",
        env = "WS_INGRESS_TRUSTED_PROXY_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub trusted_proxy_cidrs: Vec<IpNet>,

    /// Range of load balancers whose connections, health checks included, begin with a PROXY header, version 1 or 2; repeat the flag,
    /// or separate several with ','. One without it is closed; from anywhere else none is read. Default: from nowhere.
    #[arg(
        long = "proxy-protocol-cidr",
        env = "WS_INGRESS_PROXY_PROTOCOL_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub proxy_protocol_cidrs: Vec<IpNet>,
}

/// Limits that depend on the machine and on what stands around it: the same in a cluster and in standalone.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Bounds {
    /// TLS handshakes that are computed at once. More wait for their turn, and are closed where that takes longer than 3 s. Default: half of
    /// the cores, so that open sockets have the other half.
    #[arg(
        long,
        env = "WS_INGRESS_MAX_CONCURRENT_TLS_HANDSHAKES",
        value_name = "NUMBER"
    )]
    pub max_concurrent_tls_handshakes: Option<NonZeroU16>,

    /// How long the other side of a socket may go on after one side has ended, and both have to answer the Close after timeouts.read (units
    /// h, m, s, ms; at most 24h). 0s ends both at once.
    #[arg(long, env = "WS_INGRESS_HALF_CLOSE_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = half_close_timeout)]
    pub half_close_timeout: Duration,

    /// Address of this machine that connections to backends come from, where one address has too few ports for all sockets to an endpoint;
    /// repeat the flag, or separate several with ','. Endpoints of a family without one are reached as ever. Default: as the system chooses.
    #[arg(
        long = "backend-source-address",
        env = "WS_INGRESS_BACKEND_SOURCE_ADDRESS",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    pub backend_source_addresses: Vec<IpAddr>,
}

/// Most of `--half-close-timeout`, in the chart too: a socket of which one side is gone for a day is a leak, and no clock counts for ever.
const LONGEST_HALF_CLOSE: Duration = Duration::from_hours(24);

fn half_close_timeout(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST_HALF_CLOSE {
        return Err("at most 24h".into());
    }
    Ok(duration)
}

impl Bounds {
    /// The limits with these instead of their defaults.
    pub fn limits(&self) -> Limits {
        let Self {
            max_concurrent_tls_handshakes,
            half_close_timeout,
            backend_source_addresses: _,
        } = self;
        let mut limits = Limits {
            half_close: *half_close_timeout,
            ..Limits::default()
        };
        if let Some(handshakes) = max_concurrent_tls_handshakes {
            limits.tls_handshakes = handshakes.get().into();
        }
        limits
    }
}
