//! The relay: bytes both ways between a client and a backend, after the 101.
//!
//! In: both streams, the bytes that came early, limits and a signal. Out: how it ended. Bytes pass unchanged; a header-only
//! scanner follows each direction so that a Close can be put in between two frames when drain or a limit ends the relay. An end
//! passes on as it came: FIN as FIN (after `close_notify` over TLS), reset as reset; no close code is invented for a peer. After
//! one side ended the other has `half_close` left. Nothing is buffered but what the other side has not taken yet.

mod half;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use self::half::{Fault, Half};
use crate::drain::CloseOrder;
use crate::frames::{Sender, Until};
use crate::send_limit::SendLimit;
use crate::stream::{Stream, Transport};

/// A timer that is not needed is set this far ahead.
const FAR: Duration = Duration::from_hours(8760);

/// Times of one relay; zero switches `read` and `send` off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Nothing read from the backend for this long ends the relay.
    pub(crate) read: Duration,
    /// One write to either side without progress for this long ends the relay.
    pub(crate) send: Duration,
    /// How long one side may go on after the end of the other was delivered to it.
    pub(crate) half_close: Duration,
    /// How long a backend has to answer our Close once the client is gone.
    pub(crate) close_linger: Duration,
}

/// Everything that a relay needs.
#[derive(Debug)]
pub(crate) struct Relay<D, U> {
    pub(crate) downstream: D,
    pub(crate) upstream: U,
    /// Client bytes that came before the 101.
    pub(crate) to_upstream: Bytes,
    /// Backend bytes that came with the 101.
    pub(crate) to_downstream: Bytes,
    pub(crate) limits: Limits,
    /// False when an extension other than permessage-deflate was agreed on; then nothing is ever put in.
    pub(crate) frames_are_known: bool,
    pub(crate) signal: oneshot::Receiver<CloseOrder>,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The side that ended first had sent a Close.
    Closed,
    /// The client's stream ended without a Close.
    ClientEof,
    /// The backend's stream ended without a Close.
    BackendEof,
    ClientReset,
    BackendReset,
    ReadTimeout,
    SendTimeout,
    /// Closed by order, in time.
    Drained,
    /// Still open at the order's deadline.
    Cut,
}

impl Ended {
    /// The `cause` label of the metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientEof => "client_eof",
            Self::BackendEof => "backend_eof",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::ReadTimeout => "read_timeout",
            Self::SendTimeout => "send_timeout",
            Self::Drained => "drained",
            Self::Cut => "cut",
        }
    }
}

/// A stream that a relay can own.
pub(crate) trait RelayStream: Transport {
    /// Makes the drop of this stream a TCP reset, without any farewell.
    fn reset_on_drop(&mut self);
    /// Sets the longest time that one write may wait; zero is none.
    fn limit_sending(&mut self, limit: Duration);
}

impl RelayStream for SendLimit {
    fn reset_on_drop(&mut self) {
        // A socket that refuses this is closed already.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    fn limit_sending(&mut self, limit: Duration) {
        self.set(limit);
    }
}

impl RelayStream for Stream {
    fn reset_on_drop(&mut self) {
        self.socket().reset_on_drop();
    }

    fn limit_sending(&mut self, limit: Duration) {
        self.socket().limit_sending(limit);
    }
}

/// Relays until one of the peers, a limit or an order ends it.
pub(crate) fn run<D: RelayStream, U: RelayStream>(
    relay: Relay<D, U>,
) -> impl Future<Output = Ended> {
    // Not in the future, which would have room for the relay beside the tunnel as long as it lives.
    let mut tunnel = Tunnel::new(relay);
    async move {
        let ended = poll_fn(|context| tunnel.poll(context)).await;
        match ended {
            Ended::ClientReset => tunnel.upstream.reset_on_drop(),
            Ended::BackendReset => tunnel.downstream.reset_on_drop(),
            // What is left unsent must not keep the kernel busy for a peer that is not there.
            Ended::Cut | Ended::SendTimeout => {
                tunnel.upstream.reset_on_drop();
                tunnel.downstream.reset_on_drop();
            }
            Ended::Closed
            | Ended::ClientEof
            | Ended::BackendEof
            | Ended::ReadTimeout
            | Ended::Drained => {}
        }
        ended
    }
}

/// An order that is being carried out.
#[derive(Debug)]
struct Closing {
    order: CloseOrder,
    /// How the relay ended if both sides close in time, and if not.
    in_time: Ended,
    too_late: Ended,
    /// Set when the client is done; the backend then has until this.
    linger: Option<Instant>,
}

struct Tunnel<D, U> {
    downstream: D,
    upstream: U,
    /// Client to backend.
    up: Half,
    /// Backend to client.
    down: Half,
    limits: Limits,
    signal: Option<oneshot::Receiver<CloseOrder>>,
    last_read: Instant,
    /// How the first side ended, and when the other must have followed.
    first_end: Option<(Ended, Instant)>,
    closing: Option<Closing>,
    timer: Pin<Box<Sleep>>,
}

impl<D: RelayStream, U: RelayStream> Tunnel<D, U> {
    fn new(mut relay: Relay<D, U>) -> Self {
        relay.downstream.limit_sending(relay.limits.send);
        relay.upstream.limit_sending(relay.limits.send);
        let mut up = Half::new(Sender::Client, relay.frames_are_known);
        let mut down = Half::new(Sender::Server, relay.frames_are_known);
        up.preload(&relay.to_upstream);
        down.preload(&relay.to_downstream);
        Self {
            downstream: relay.downstream,
            upstream: relay.upstream,
            up,
            down,
            limits: relay.limits,
            signal: Some(relay.signal),
            last_read: Instant::now(),
            first_end: None,
            closing: None,
            timer: Box::pin(sleep_until(Instant::now() + FAR)),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        if let Some(signal) = &mut self.signal
            && let Poll::Ready(order) = Pin::new(signal).poll(context)
        {
            self.signal = None;
            if let Ok(order) = order {
                self.begin_closing(order, Ended::Drained, Ended::Cut);
            }
        }
        loop {
            if let Some(ended) = self.poll_halves(context) {
                return Poll::Ready(ended);
            }
            // A deadline that moved later is looked at when the timer fires: a busy relay does not touch its timer.
            let next = self.next_deadline();
            if self.timer.is_elapsed() || next.is_some_and(|next| next < self.timer.deadline()) {
                let next = next.unwrap_or_else(|| Instant::now() + FAR);
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if let Some(ended) = self.on_time(Instant::now()) {
                return Poll::Ready(ended);
            }
        }
    }

    /// Moves what can be moved; returns how the relay ended, if it did.
    fn poll_halves(&mut self, context: &mut Context<'_>) -> Option<Ended> {
        match self
            .up
            .poll(context, &mut self.downstream, &mut self.upstream)
        {
            Ok(_) => {}
            Err(Fault::Source) => return Some(self.reset_by(Ended::ClientReset)),
            Err(Fault::Stalled) => return Some(Ended::SendTimeout),
        }
        let held_back = self.down.is_held_back();
        match self
            .down
            .poll(context, &mut self.upstream, &mut self.downstream)
        {
            // While the client is behind, the backend is not read at all, and cannot be called silent.
            Ok(read) if read > 0 || held_back => self.last_read = Instant::now(),
            Ok(_) => {}
            Err(Fault::Source) => return Some(self.reset_by(Ended::BackendReset)),
            Err(Fault::Stalled) => return Some(Ended::SendTimeout),
        }
        self.finish_closing(context);
        if self.first_end.is_none()
            && let Some(first) = self.first_end()
        {
            // Only once the end is delivered: until then `limits.send` bounds the wait, and what a slow client still gets is not late.
            self.first_end = Some((first, Instant::now() + self.limits.half_close));
        }
        let done = self.up.write_done() && self.down.write_done();
        done.then(|| self.outcome())
    }

    /// A reset after a whole closing handshake is only a hasty way to hang up.
    fn reset_by(&self, side: Ended) -> Ended {
        if self.up.close_seen() && self.down.close_seen() {
            Ended::Closed
        } else {
            side
        }
    }

    /// How the side that ended first ended.
    fn first_end(&self) -> Option<Ended> {
        match (self.up.end_delivered(), self.down.end_delivered()) {
            (false, false) => match (self.up.broken(), self.down.broken()) {
                (true, _) => Some(Ended::BackendReset),
                (_, true) => Some(Ended::ClientReset),
                (false, false) => None,
            },
            (true, _) if self.up.close_seen() => Some(Ended::Closed),
            (_, true) if self.down.close_seen() => Some(Ended::Closed),
            (true, _) => Some(Ended::ClientEof),
            (false, true) => Some(Ended::BackendEof),
        }
    }

    fn outcome(&self) -> Ended {
        match (&self.closing, self.first_end) {
            (Some(closing), _) => closing.in_time,
            (None, Some((ended, _))) => ended,
            // Both directions are done only after one of them ended.
            (None, None) => Ended::Closed,
        }
    }

    fn begin_closing(&mut self, order: CloseOrder, in_time: Ended, too_late: Ended) {
        self.up.close_at(Until::Message, &order);
        self.down.close_at(Until::Message, &order);
        self.closing = Some(Closing {
            order,
            in_time,
            too_late,
            linger: None,
        });
    }

    /// Ends each side that has got our Close and has sent its own, or is gone.
    fn finish_closing(&mut self, context: &mut Context<'_>) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        if closing.linger.is_none() && self.down.close_delivered() && self.up.is_answered() {
            self.down.finish();
            closing.linger = Some(Instant::now() + self.limits.close_linger);
            context.waker().wake_by_ref();
        }
        if !self.up.finishing() && self.up.close_delivered() && self.down.is_answered() {
            self.up.finish();
            context.waker().wake_by_ref();
        }
    }

    fn counts_silence(&self) -> bool {
        !self.limits.read.is_zero() && !self.down.is_held_back() && !self.down.source_ended()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let half_close = self.first_end.map(|(_, deadline)| deadline);
        let deadlines = if let Some(closing) = &self.closing {
            let is_waiting = self.up.is_waiting() || self.down.is_waiting();
            [
                Some(closing.order.deadline),
                is_waiting.then_some(closing.order.patience),
                closing.linger,
                half_close,
            ]
        } else {
            let silence = self
                .counts_silence()
                .then(|| self.last_read + self.limits.read);
            [silence, None, None, half_close]
        };
        deadlines.into_iter().flatten().min()
    }

    /// Acts on every deadline that has passed.
    fn on_time(&mut self, now: Instant) -> Option<Ended> {
        if let Some(closing) = &self.closing {
            let (order, in_time, too_late, linger) = (
                closing.order,
                closing.in_time,
                closing.too_late,
                closing.linger,
            );
            if linger.is_some_and(|linger| linger <= now) {
                return Some(in_time);
            }
            if order.deadline <= now {
                return Some(too_late);
            }
            if order.patience <= now {
                self.up.close_at(Until::Frame, &order);
                self.down.close_at(Until::Frame, &order);
            }
        } else if self.counts_silence() && self.last_read + self.limits.read <= now {
            let reason = "nothing came from the backend for the read timeout";
            let order = CloseOrder {
                code: 1001,
                reason,
                patience: now,
                deadline: now + self.limits.half_close,
            };
            self.begin_closing(order, Ended::ReadTimeout, Ended::ReadTimeout);
        }
        match self.first_end {
            Some((ended, deadline)) if deadline <= now => Some(ended),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests;
