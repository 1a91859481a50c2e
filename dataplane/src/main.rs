//! `ws-ingress-dataplane`: parses the command line, sets what only a process may set, serves what the controller pushes.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use dataplane::args::Args;
use dataplane::receive::{self, Receive};
use dataplane::{Admin, Config, Dataplane, Drained, Signals, Stop};
use route_table::{Loopback, RouteTable};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Exits by itself, with 2, when the command line is wrong.
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain of causes, on one line.
            let _nobody_reads = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).context("--log is not a filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a crypto provider is already installed"))?;
    dataplane::raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let signals = Signals::new().context("cannot take signals")?;
    let (tables, table) = watch::channel(Arc::new(RouteTable::empty()));
    let (link, linked) = receive::link();
    let (stop, stopped) = watch::channel(Stop::Serve);
    let config = Config {
        https_address: args.listeners.https_address,
        http_address: args.listeners.http_address,
        https_public_port: args.listeners.https_public_port,
        status_address: args.status_address,
        drain_delay: args.drain_delay,
        drain_timeout: args.drain_timeout,
        trusted_proxies: args.proxies.trusted_proxy_cidrs,
        proxy_protocol_peers: args.proxies.proxy_protocol_cidrs,
        // The dataplane's own pod: no backend is there.
        loopback: Loopback::Refuse,
        resolver: args.externals.resolver,
        backend_ca_file: args.externals.backend_ca_file,
        limits: args.bounds.limits(),
        backend_source_addresses: args.bounds.backend_source_addresses,
    };
    let dataplane = Dataplane::bind(config, table.clone())?.show_link(linked);
    let admin = Admin::bind(args.admin_address)?;
    let addresses = dataplane.addresses();
    let (https, http, status) = (addresses.https, addresses.http, addresses.status);
    announce(&format!(
        "listening https={https} http={http} status={status} admin={}",
        admin.address()
    ));

    let receive = Receive {
        controller: args.controller,
        ca_file: args.ca_file,
        token_file: args.token_file,
        pod: args.pod_name,
    };
    let tasks = TaskTracker::new();
    // Until the process ends: tables are taken while it drains, too.
    let receiving = tasks.spawn(receive::run(receive, tables, link));
    let administering = tasks.spawn(admin.serve(table, stop.clone()));
    let drained = tokio::select! {
        drained = dataplane.run(stopped) => drained?,
        ended = receiving => return Err(anyhow!("the task that takes tables has ended").context(format!("{ended:?}"))),
        ended = administering => return Err(anyhow!("the admin listener has ended").context(format!("{ended:?}"))),
        never = signals.forward(&stop) => match never {},
    };
    let Drained {
        sockets,
        closed,
        cut,
    } = drained;
    announce(&format!(
        "drained sockets={sockets} closed={closed} cut={cut}"
    ));
    Ok(())
}

/// A line that other programs read. Who does not read it is no reason to stop serving.
fn announce(line: &str) {
    let mut stdout = io::stdout().lock();
    let _nobody_reads = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
