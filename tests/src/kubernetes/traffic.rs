//! Clients that must notice nothing: sockets that talk, and new handshakes all along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Dial, WebSocket, talk};

/// Sockets that stay open. Few: what happens to one controller happens to all of them alike.
const SOCKETS: usize = 8;

/// Time between two messages of one socket, and between two handshakes. Pacing, not waiting for anything.
const PACE: Duration = Duration::from_millis(100);

/// Traffic through one host.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    handshakes: Arc<AtomicU64>,
    clients: JoinSet<()>,
}

impl Traffic {
    /// Opens the sockets; from here on everything must succeed.
    pub async fn start(dial: &Dial) -> Self {
        let (stop, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut clients = JoinSet::new();
        for _ in 0..SOCKETS {
            clients.spawn(stay(dial.connect().await, Arc::clone(&stop)));
        }
        clients.spawn(come_and_go(
            dial.clone(),
            Arc::clone(&stop),
            Arc::clone(&handshakes),
        ));
        Self {
            stop,
            handshakes,
            clients,
        }
    }

    /// New handshakes that succeeded so far.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// Ends it; panics when any socket or handshake failed, or when there were no new handshakes.
    pub async fn undisturbed(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            if let Err(error) = ended {
                panic!("a client was disturbed: {error}");
            }
        }
        assert!(self.handshakes() > 0, "nobody came");
    }
}

async fn stay(mut socket: WebSocket, stop: Arc<AtomicBool>) {
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        talk(&mut socket, &format!("message {number}")).await;
        number += 1;
        sleep(PACE).await;
    }
}

async fn come_and_go(dial: Dial, stop: Arc<AtomicBool>, handshakes: Arc<AtomicU64>) {
    while !stop.load(Ordering::SeqCst) {
        let mut socket = dial.connect().await;
        talk(&mut socket, "a new one").await;
        handshakes.fetch_add(1, Ordering::SeqCst);
        sleep(PACE).await;
    }
}
