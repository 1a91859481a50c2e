//! One address in front of several controllers, as their Service is in a cluster: bytes pass through untouched, and each
//! new connection goes to the next one. A dataplane dials only one port, and replicas on one machine need several.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A forwarder that ends with its test. Who is behind it may change at any time; with nobody it hangs up.
pub struct Front {
    pub address: SocketAddr,
    controllers: Arc<Mutex<Vec<SocketAddr>>>,
    /// Open connections end when it changes.
    cuts: watch::Sender<()>,
    _listener: JoinSet<()>,
}

impl Front {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port of 127.0.0.1");
        let address = listener.local_addr().expect("a bound address");
        let controllers = Arc::new(Mutex::new(Vec::new()));
        let (cuts, cut) = watch::channel(());
        let mut task = JoinSet::new();
        task.spawn(forward(listener, Arc::clone(&controllers), cut));
        Self {
            address,
            controllers,
            cuts,
            _listener: task,
        }
    }

    /// New connections go to these; those that are open stay.
    pub fn lead_to(&self, controllers: &[SocketAddr]) {
        let mut now = self
            .controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        now.clear();
        now.extend_from_slice(controllers);
    }

    /// Ends the connections that are open.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }
}

async fn forward(
    listener: TcpListener,
    controllers: Arc<Mutex<Vec<SocketAddr>>>,
    cut: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    for turn in 0_usize.. {
        let Ok((mut client, _)) = listener.accept().await else {
            return;
        };
        let next = {
            let controllers = controllers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = controllers.len().max(1);
            controllers.get(turn % count).copied()
        };
        let Some(next) = next else {
            continue;
        };
        let mut cut = cut.clone();
        cut.mark_unchanged();
        connections.spawn(async move {
            // However it ends, both sides see it: the sockets go with this task.
            if let Ok(mut controller) = TcpStream::connect(next).await {
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut controller) => {}
                    _ = cut.changed() => {}
                }
            }
        });
    }
}
