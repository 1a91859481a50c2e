//! The echo backend as a process of its own, as the product meets it.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::metrics;
use crate::process::{Lines, Process, build_folder};
use crate::wait;

/// A running echo backend.
pub struct EchoProcess {
    process: Process,
    pub address: SocketAddr,
}

impl EchoProcess {
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// With more flags than its name and address.
    pub async fn start_with(name: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(build_folder().join("echo"));
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--exit-with-parent",
                "--name",
                name,
            ])
            .args(flags);
        let process = Process::spawn(name, command);
        let line = process.stdout.with("echo listening on ").await;
        let address = line
            .rsplit(' ')
            .next()
            .and_then(|address| address.parse().ok());
        Self {
            address: address.expect("an address at the end of the line"),
            process,
        }
    }

    /// Messages and Closes it received, a line each.
    pub fn log(&self) -> &Lines {
        &self.process.stdout
    }

    /// Handshakes it answered so far, asked for directly.
    pub async fn handshakes(&self) -> u64 {
        let (_, body) = wait::until("the echo backend counts", async || {
            metrics::get(self.address, "/count").await
        })
        .await;
        let count: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        count["handshakes"].as_u64().expect("a count")
    }
}
