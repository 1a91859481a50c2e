//! What the relay costs, beside other proxies. `make bench` runs it; see `tests::bench`.
#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use clap::Parser as _;
use tests::bench::options::Options;
use tests::bench::{backend, report, run};

fn main() -> anyhow::Result<()> {
    // One thread: what the client does is on one CPU, and its account is that of the process.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if std::env::args().nth(1).as_deref() == Some("backend") {
        return runtime.block_on(backend::run());
    }
    let options = Options::parse();
    let results = runtime.block_on(run::run(&options))?;
    println!("{}", report::report(&results, &options));
    Ok(())
}
