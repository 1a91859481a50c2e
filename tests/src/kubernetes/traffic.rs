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
    newcomers: JoinSet<()>,
    no_more: Arc<AtomicBool>,
}

impl Traffic {
    /// Opens the sockets; from here on everything must succeed.
    pub async fn start(dial: &Dial) -> Self {
        let [stop, no_more] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let handshakes = Arc::default();
        let (mut clients, mut newcomers) = (JoinSet::new(), JoinSet::new());
        for _ in 0..SOCKETS {
            clients.spawn(stay(dial.connect().await, Arc::clone(&stop)));
        }
        newcomers.spawn(come_and_go(
            dial.clone(),
            Arc::clone(&no_more),
            Arc::clone(&handshakes),
        ));
        Self {
            stop,
            handshakes,
            clients,
            newcomers,
            no_more,
        }
    }

    /// New handshakes that succeeded so far.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// Ends the new handshakes, which must all have succeeded; the sockets go on talking.
    pub async fn nobody_new_comes(&mut self) {
        self.no_more.store(true, Ordering::SeqCst);
        all_went_well(&mut self.newcomers).await;
    }

    /// Ends it; panics when any socket or handshake failed.
    pub async fn undisturbed(mut self) {
        self.nobody_new_comes().await;
        self.stop.store(true, Ordering::SeqCst);
        all_went_well(&mut self.clients).await;
    }
}

async fn all_went_well(clients: &mut JoinSet<()>) {
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            panic!("a client was disturbed: {error}");
        }
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
    // Once at least.
    loop {
        let mut socket = dial.connect().await;
        talk(&mut socket, "a new one").await;
        handshakes.fetch_add(1, Ordering::SeqCst);
        if stop.load(Ordering::SeqCst) {
            return;
        }
        sleep(PACE).await;
    }
}
