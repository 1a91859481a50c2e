//! One address in front of several servers, as their Service is in a cluster: bytes pass through untouched, and each new
//! connection goes to the next one. A dataplane dials only one port, and replicas on one machine need several. In front of
//! an API server it is a network that can be cut or held.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 16 << 10;

/// A forwarder that ends with its test. Who is behind it may change at any time; with nobody it hangs up.
pub struct Front {
    pub address: SocketAddr,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    frozen: watch::Sender<bool>,
    passed: Arc<AtomicU64>,
    _listener: JoinSet<()>,
}

impl Front {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port of 127.0.0.1");
        let address = listener.local_addr().expect("a bound address");
        let behind = Arc::new(Mutex::new(Vec::new()));
        let (cuts, frozen) = (watch::Sender::new(0), watch::Sender::new(false));
        let passed = Arc::default();
        let mut task = JoinSet::new();
        let forwarding = forward(
            listener,
            Arc::clone(&behind),
            cuts.subscribe(),
            frozen.subscribe(),
            Arc::clone(&passed),
        );
        task.spawn(forwarding);
        Self {
            address,
            behind,
            cuts,
            frozen,
            passed,
            _listener: task,
        }
    }

    /// Bytes that were passed on so far, in both directions.
    pub fn passed_bytes(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// New connections go to these; those that are open stay.
    pub fn lead_to(&self, servers: &[SocketAddr]) {
        let mut now = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        now.clear();
        now.extend_from_slice(servers);
    }

    /// Ends all open connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From here on nothing arrives any more, in either direction; connections stay open, and new ones are taken.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// What was held back arrives, and everything after it.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn forward(
    listener: TcpListener,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    cuts: watch::Receiver<u64>,
    frozen: watch::Receiver<bool>,
    passed: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    for turn in 0_usize.. {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let next = {
            let behind = behind.lock().unwrap_or_else(PoisonError::into_inner);
            let count = behind.len().max(1);
            behind.get(turn % count).copied()
        };
        let Some(next) = next else {
            continue;
        };
        let (frozen, passed) = (frozen.clone(), Arc::clone(&passed));
        let mut cuts = cuts.clone();
        cuts.mark_unchanged();
        connections.spawn(async move {
            // However it ends, both sides see it: the sockets go with this task.
            tokio::select! {
                () = join(client, next, frozen, &passed) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn join(
    client: TcpStream,
    server: SocketAddr,
    frozen: watch::Receiver<bool>,
    passed: &AtomicU64,
) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pass(from_client, to_server, frozen.clone(), passed),
        pass(from_server, to_client, frozen, passed),
    );
}

/// Passes bytes on to their end, and then the end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
    passed: &AtomicU64,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or_default();
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        passed.fetch_add(read as u64, Ordering::SeqCst);
    }
}
