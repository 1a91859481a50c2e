//! `ws-ingress-controller`: parses the command line, sets what only a process may set, runs.

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use controller::args::Args;
use controller::run;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Exits by itself, with 2, when the command line is wrong.
    let args = Args::parse();
    match run_with(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain of causes, on one line.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_with(args: Args) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&args.log)?)
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a crypto provider is already installed"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run::run(args))
}
