//! The turns in which handshakes are computed, so that those who talk do not wait for those who come.
//!
//! What a `ClientHello` asks for, a key exchange and a signature, is computed in one go of 0.1 ms (P-256) to 5 ms (RSA of 4096 bits), in which
//! its thread does nothing else. A thousand clients that come back at once would stand in the threads' queues before every relay. So this work,
//! and it alone, needs a slot: no slot is held while a client is waited for, neither for its `ClientHello` nor for its `Finished`, because
//! strangers that send nothing would hold them all. (What follows a `Finished` takes a few microseconds.) A `ClientHello` for a name that is
//! not served needs one too, for some microseconds: the name is known once rustls has read it. Who has got a slot first lets the thread look
//! for sockets that have something to read, and those go before it. Who finds no place in the queue, or waits there for too long, is let go: it
//! would only be late, as would all behind it.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{TlsError, TlsSocket};
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::stream::Transport;

/// Why a handshake was not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shed {
    QueueFull,
    TooLate,
}

impl Shed {
    /// The `outcome` label of the metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLate => "queue_timeout",
        }
    }
}

/// Slots, and the queue for them.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Semaphore,
    queue: Semaphore,
    wait: Duration,
    metrics: Arc<Metrics>,
}

impl Slots {
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            free: Semaphore::new(limits.tls_handshakes),
            queue: Semaphore::new(limits.tls_handshake_queue),
            wait: limits.tls_handshake_wait,
            metrics,
        }
    }

    /// A slot, once it is this caller's turn.
    async fn take(&self) -> Result<SemaphorePermit<'_>, Shed> {
        let slot = match self.free.try_acquire() {
            Ok(slot) => slot,
            Err(_) => self.wait_for_one().await?,
        };
        others_first().await;
        Ok(slot)
    }

    async fn wait_for_one(&self) -> Result<SemaphorePermit<'_>, Shed> {
        let _place = self.queue.try_acquire().map_err(|_| Shed::QueueFull)?;
        let _counted = self.metrics.tls_handshake_waits();
        let turn = timeout(self.wait, self.free.acquire()).await;
        // It is never closed.
        turn.ok().and_then(Result::ok).ok_or(Shed::TooLate)
    }
}

/// Lets the thread look for sockets that have something to read, and serve them.
async fn others_first() {
    // tokio comes back from this once it has asked the system which sockets are ready, but before it runs their tasks.
    yield_now().await;
    // A task that wakes itself goes behind all others.
    let mut woken = false;
    poll_fn(|context| {
        if mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Answers a handshake of which `received` is what the client has sent so far, a whole `ClientHello` at least.
pub(super) async fn begin<S: Transport>(
    stream: S,
    config: Arc<ServerConfig>,
    received: Vec<u8>,
    slots: &Slots,
) -> Result<Box<TlsSocket<S>>, TlsError> {
    let _slot = slots.take().await.map_err(TlsError::Shed)?;
    let begun = TlsSocket::begin(stream, config, received);
    begun.map(Box::new).map_err(TlsError::Handshake)
}

/// Performs the rest of a handshake.
pub(super) async fn complete<S: Transport>(
    socket: &mut TlsSocket<S>,
    slots: &Slots,
) -> Result<(), TlsError> {
    // A HelloRetryRequest (RFC 8446 §4.1.4) has cost nothing yet; what it is answered with does. TLS 1.2 has its key exchange there too.
    while socket.awaits_a_key_share() {
        socket.collect().await.map_err(TlsError::Handshake)?;
        let _slot = slots.take().await.map_err(TlsError::Shed)?;
        socket.look_again();
    }
    socket.finish().await.map_err(TlsError::Handshake)
}

#[cfg(test)]
mod tests;
