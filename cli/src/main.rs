//! `ws-ingress`: parses the command line, sets what only a process may set, runs one command.

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use ws_ingress::args::{Args, Command};
use ws_ingress::{output, standalone};

fn main() -> ExitCode {
    // Exits by itself, with 2, when the command line is wrong.
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain of causes, on one line.
            output::report(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let Args { log, command } = args;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(log)?)
        .with_writer(io::stderr)
        .init();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a crypto provider is already installed"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match command {
        Command::Standalone(args) => {
            dataplane::raise_open_file_limit();
            runtime.block_on(standalone::run(args))
        }
    }
}
