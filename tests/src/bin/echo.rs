//! `echo`: the backend of `make demo` and of the tests. It listens without TLS, as a backend behind an ingress does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};
use tests::echo::Echo;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Serves a page and echoes WebSocket messages.
#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose. May be given several times.
    #[arg(long, required = true, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,

    /// Name in the first message and in the log.
    #[arg(long, default_value = "echo")]
    name: String,

    /// Subprotocol to agree to when a client offers it.
    #[arg(long, value_name = "NAME")]
    subprotocol: Option<String>,

    /// Stay alive on SIGTERM and SIGINT, as a backend that outlives its ingress does. Ctrl-C in a terminal reaches this
    /// program too, and its sockets should end by the ingress, not by their backend.
    #[arg(long, conflicts_with = "close_on_sigterm")]
    ignore_sigterm: bool,

    /// On SIGTERM serve this many seconds longer, then close every socket with 1001 and end: a backend in a cluster gets new
    /// sockets until everybody knows that it ends.
    #[arg(long, value_name = "SECONDS")]
    close_on_sigterm: Option<u64>,

    /// End when the process that started this one ends, however it ended.
    #[arg(long)]
    exit_with_parent: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.exit_with_parent {
        set_parent_process_death_signal(Some(Signal::KILL))
            .context("cannot follow the parent process")?;
    }
    // A handler that nobody reads replaces the default action, which would be to die.
    let _ignored = if args.ignore_sigterm {
        ignore_signals()?
    } else {
        Vec::new()
    };

    let echo = Echo::new(args.name, args.subprotocol);
    let mut listeners = JoinSet::new();
    for address in args.listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        listeners.spawn(echo.clone().serve(listener));
    }
    let told = async {
        match args.close_on_sigterm {
            Some(seconds) => after_sigterm(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        told = told => told?,
        Some(ended) = listeners.join_next() => ended??,
    }
    echo.close_all().await;
    Ok(())
}

async fn after_sigterm(delay: Duration) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot take signals")?;
    terminate.recv().await;
    sleep(delay).await;
    Ok(())
}

fn ignore_signals() -> anyhow::Result<Vec<Signals>> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
    kinds
        .into_iter()
        .map(|kind| signal(kind).context("cannot take signals"))
        .collect()
}
