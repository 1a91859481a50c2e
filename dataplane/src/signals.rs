//! SIGTERM and SIGINT (Ctrl-C), which mean the same: the first drains, the second cuts.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::run::Stop;

/// The signals of this process, taken from the moment it is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Passes signals on for ever.
    pub async fn forward(mut self, stop: &watch::Sender<Stop>) -> Infallible {
        self.next().await;
        tracing::info!("draining; a second signal cuts what is still open");
        raise(stop, Stop::Drain);
        self.next().await;
        tracing::info!("cutting what is still open");
        raise(stop, Stop::Cut);
        std::future::pending().await
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Goes forward to `to`, never back.
pub(crate) fn raise(stop: &watch::Sender<Stop>, to: Stop) {
    stop.send_if_modified(|stop| {
        let forward = to > *stop;
        *stop = to.max(*stop);
        forward
    });
}
