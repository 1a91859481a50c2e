//! A line to the API server that a test can disturb: what is on its way stays there, and no connection ends, which is how a
//! network fails that loses packets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A forwarder that ends with its test.
pub struct Line {
    pub address: SocketAddr,
    flow: watch::Sender<Flow>,
    opened: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    _listener: JoinSet<()>,
}

/// What passes.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Nothing on connections with a lower number.
    alive_from: usize,
    /// Whether requests wait.
    holds_requests: bool,
}

/// One connection.
#[derive(Clone)]
struct Way {
    number: usize,
    flow: watch::Receiver<Flow>,
    held: Arc<AtomicUsize>,
}

impl Line {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port of 127.0.0.1");
        let address = listener.local_addr().expect("a bound address");
        let (flow, receiver) = watch::channel(Flow::default());
        let (opened, held) = (Arc::default(), Arc::default());
        let mut task = JoinSet::new();
        let way = Way {
            number: 0,
            flow: receiver,
            held: Arc::clone(&held),
        };
        task.spawn(forward(listener, server, way, Arc::clone(&opened)));
        Self {
            address,
            flow,
            opened,
            held,
            _listener: task,
        }
    }

    /// From here on the connections that are open carry nothing, and new ones work.
    pub fn lose_open_connections(&self) {
        let alive_from = self.opened.load(Ordering::SeqCst);
        self.flow.send_modify(|flow| flow.alive_from = alive_from);
    }

    /// From here on requests wait; what the API server says still comes.
    pub fn hold_requests(&self) {
        self.flow.send_modify(|flow| flow.holds_requests = true);
    }

    /// On how many open connections a request waits.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// What waits goes on its way, late.
    pub fn release_requests(&self) {
        self.flow.send_modify(|flow| flow.holds_requests = false);
    }
}

async fn forward(listener: TcpListener, server: SocketAddr, way: Way, opened: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let way = Way {
            number: opened.fetch_add(1, Ordering::SeqCst),
            ..way.clone()
        };
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Whichever side ends it ends it for both, unless it is lost: then nobody hears of anything.
            tokio::select! {
                () = way.clone().copy(from_client, to_server, true) => {}
                () = way.copy(from_server, to_client, false) => {}
            }
        });
    }
}

impl Way {
    async fn copy(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, requests: bool) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            let number = self.number;
            let passes =
                move |flow: &Flow| number >= flow.alive_from && !(requests && flow.holds_requests);
            if !passes(&self.flow.borrow()) {
                let _held = Held::new(&self.held);
                // The client may hang up meanwhile, as after its own time limit; then the request is lost.
                let mut hung_up = [0];
                tokio::select! {
                    Ok(_) = self.flow.wait_for(passes) => {}
                    Ok(0) | Err(_) = from.peek(&mut hung_up) => return,
                    else => return,
                }
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}

/// Counts while it lives.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
