//! The echo backend as a process of its own, as the product meets it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

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
        Self::start_on(Ipv4Addr::LOCALHOST.into(), name, flags).await
    }

    /// On this machine's own address: in a cluster an endpoint is never a loopback address, neither the API server nor
    /// the controller takes one.
    pub async fn start_reachable(name: &str) -> Self {
        Self::start_on(own_address(), name, &[]).await
    }

    /// On this address.
    pub async fn start_on(ip: IpAddr, name: &str, flags: &[&str]) -> Self {
        Self::start_at(SocketAddr::new(ip, 0), name, flags).await
    }

    /// On this address and port; port 0 lets the kernel choose.
    pub async fn start_at(listen: SocketAddr, name: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(build_folder().join("echo"));
        let listen = listen.to_string();
        command
            .args(["--listen", &listen, "--exit-with-parent", "--name", name])
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

/// A port that is free at all of these addresses, for backends that a name leads to at one port.
pub fn common_port(addresses: &[IpAddr]) -> u16 {
    let free = || {
        let first = TcpListener::bind((*addresses.first()?, 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let others = addresses.iter().skip(1);
        let others = others.map(|ip| TcpListener::bind((*ip, port)).ok());
        others.collect::<Option<Vec<_>>>().map(|_| port)
    };
    // Each try is another port of tens of thousands.
    let found = (0..100).find_map(|_| free());
    found.expect("a port that is free at several addresses")
}

/// An IPv4 address of this machine that is not loopback.
pub fn own_address() -> IpAddr {
    // Connecting a UDP socket sends nothing; the kernel only chooses the address that it would send from.
    let towards_documentation = SocketAddr::from(([198, 51, 100, 1], 9));
    let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(towards_documentation)?;
        socket.local_addr()
    });
    match found {
        Ok(address) if !address.ip().is_loopback() => address.ip(),
        other => panic!("this test needs a network interface with a default route: {other:?}"),
    }
}
