//! One direction of a relay.
//!
//! Reads from its source into a buffer that all relays of the thread share, follows the frames, and writes to its sink. Only
//! what the sink does not take at once is kept, and while anything is kept nothing more is read: that is the back-pressure, and
//! at most one read's worth of bytes ([`READ_BYTES`]) ever waits in a direction.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::drain::CloseOrder;
use crate::frames::{Scanner, Sender, Until, close_frame};
use crate::stream::Transport;

/// Read at once, and the most that waits: three TLS records. A segment holds not quite 64 KiB before a network card, or loopback, cuts it:
/// sealed or not, these are one, and a fourth record would leave a small one behind.
const READ_BYTES: usize = 48 * 1024;
/// Reads in one poll, so that one busy direction does not starve the other, or its thread.
const READS_A_POLL: usize = 8;

thread_local! {
    /// Borrowed only inside one poll; an idle relay owns no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Why a direction, and with it the relay, cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The source was reset, or broke TLS.
    Source,
    /// The sink took nothing for the whole send timeout.
    Stalled,
}

/// Our Close in this direction.
#[derive(Debug)]
enum Close {
    None,
    /// Put in at the next boundary of this kind.
    Waiting {
        frame: Vec<u8>,
        until: Until,
    },
    /// Put in; nothing may follow it (RFC 6455 §5.5.1), so what still comes is only looked at.
    Sent,
}

/// The writing end of this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Flushed,
    Unflushed,
    /// It got all, and its end.
    Ended,
    /// It failed; the rest of the source is read and dropped.
    Broken,
}

#[derive(Debug)]
pub(super) struct Half {
    sender: Sender,
    /// Absent when the frames of an unknown extension cannot be told apart.
    scanner: Option<Scanner>,
    waiting: BytesMut,
    sink: Sink,
    source_ended: bool,
    /// End the sink as soon as all is written, whether or not the source ended.
    finishing: bool,
    close: Close,
}

impl Half {
    pub(super) fn new(sender: Sender, frames_are_known: bool) -> Self {
        Self {
            sender,
            scanner: frames_are_known.then(|| Scanner::new(sender)),
            waiting: BytesMut::new(),
            // Who had it before may have written what it still holds, such as the end of the 101.
            sink: Sink::Unflushed,
            source_ended: false,
            finishing: false,
            close: Close::None,
        }
    }

    /// Takes bytes that were read before the relay began.
    pub(super) fn preload(&mut self, early: &[u8]) {
        let passed = self.follow(early);
        self.waiting.extend_from_slice(&early[..passed]);
    }

    pub(super) fn source_ended(&self) -> bool {
        self.source_ended
    }

    /// Whether the source ended and the sink has got all of it, and its end.
    pub(super) fn end_delivered(&self) -> bool {
        self.source_ended && self.write_done()
    }

    /// Whether the sink is behind, so that the source is not read: bytes wait here, or sealed in a sink that is TLS.
    pub(super) fn is_held_back(&self) -> bool {
        !self.waiting.is_empty() || self.sink == Sink::Unflushed
    }

    pub(super) fn broken(&self) -> bool {
        self.sink == Sink::Broken
    }

    pub(super) fn write_done(&self) -> bool {
        matches!(self.sink, Sink::Ended | Sink::Broken)
    }

    pub(super) fn finishing(&self) -> bool {
        self.finishing
    }

    /// Whether the source has sent a Close.
    pub(super) fn close_seen(&self) -> bool {
        self.scanner.as_ref().is_some_and(Scanner::close_seen)
    }

    /// Whether the source has sent a Close or will never send one.
    pub(super) fn is_answered(&self) -> bool {
        self.close_seen() || self.source_ended
    }

    /// Whether a Close, ours or the source's, is all on its way to the sink.
    pub(super) fn close_delivered(&self) -> bool {
        let in_stream = matches!(self.close, Close::Sent) || self.is_at_end_after_close();
        self.broken() || (in_stream && self.waiting.is_empty() && self.sink != Sink::Unflushed)
    }

    fn is_at_end_after_close(&self) -> bool {
        self.scanner
            .as_ref()
            .is_some_and(|scanner| scanner.close_seen() && scanner.is_at(Until::Frame))
    }

    /// Whether our Close still waits for the end of a message.
    pub(super) fn is_waiting(&self) -> bool {
        let patient = matches!(
            self.close,
            Close::Waiting {
                until: Until::Message,
                ..
            }
        );
        patient && !self.source_ended && !self.broken()
    }

    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    /// Puts a Close in at the next boundary, now if the stream stands at one. Nothing is put in after the source's own Close, nor
    /// into a stream whose frames cannot be told apart.
    pub(super) fn close_at(&mut self, until: Until, order: &CloseOrder) {
        if matches!(self.close, Close::Sent) || self.source_ended || self.broken() {
            return;
        }
        let frame = close_frame(self.sender, order.code, order.reason);
        self.close = Close::Waiting { frame, until };
        self.close_if_at_boundary();
    }

    fn close_if_at_boundary(&mut self) {
        let Close::Waiting { frame, until } = &self.close else {
            return;
        };
        if self
            .scanner
            .as_ref()
            .is_some_and(|scanner| scanner.is_at(*until) && !scanner.close_seen())
        {
            self.waiting.extend_from_slice(frame);
            self.close = Close::Sent;
        }
    }

    /// Follows the frames in `bytes`; returns how many of them pass on, which is fewer than all if our Close comes after them.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let Some(scanner) = &mut self.scanner else {
            return bytes.len();
        };
        match &self.close {
            Close::None => scanner.scan(bytes, Until::End),
            Close::Sent => {
                scanner.scan(bytes, Until::End);
                0
            }
            Close::Waiting { until, .. } => {
                let until = *until;
                let taken = scanner.scan(bytes, until);
                if scanner.is_at(until) && !scanner.close_seen() {
                    scanner.scan(&bytes[taken..], Until::End);
                    return taken;
                }
                scanner.scan(&bytes[taken..], Until::End);
                bytes.len()
            }
        }
    }

    /// Moves what can be moved and returns how many bytes were read.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut impl Transport,
    ) -> Result<usize, Fault> {
        let mut read = 0;
        let mut reads = 0;
        while self.poll_delivered(context, sink)?.is_ready() && !self.source_ended {
            if reads == READS_A_POLL {
                context.waker().wake_by_ref();
                break;
            }
            reads += 1;
            let Poll::Ready(taken) = SCRATCH
                .with_borrow_mut(|scratch| self.poll_read(context, source, sink, scratch))?
            else {
                break;
            };
            read += taken;
        }
        self.poll_end(context, sink)?;
        Ok(read)
    }

    /// Writes what waits; ready when nothing waits any more, here or in the sink.
    fn poll_delivered(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut impl Transport,
    ) -> Result<Poll<()>, Fault> {
        while !self.waiting.is_empty() {
            match Pin::new(&mut *sink).poll_write(context, &self.waiting) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.waiting.advance(written);
                    self.sink = Sink::Unflushed;
                }
                Poll::Ready(Ok(_)) => self.break_off(),
                Poll::Ready(Err(error)) => self.on_write_error(&error)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if self.waiting.capacity() > 0 {
            self.waiting = BytesMut::new();
        }
        if self.sink == Sink::Unflushed {
            match Pin::new(sink).poll_flush(context) {
                Poll::Ready(Ok(())) => self.sink = Sink::Flushed,
                Poll::Ready(Err(error)) => self.on_write_error(&error)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Reads once and writes at once what the sink takes; the rest waits.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut impl Transport,
        scratch: &mut [u8],
    ) -> Result<Poll<usize>, Fault> {
        let mut buffer = ReadBuf::new(scratch);
        let Poll::Ready(read) = read_once(context, source, &mut buffer) else {
            return Ok(Poll::Pending);
        };
        if read? == 0 {
            self.source_ended = true;
            return Ok(Poll::Ready(0));
        }
        let waited = matches!(self.close, Close::Waiting { .. });
        let mut passed = self.follow(buffer.filled());
        // Behind a Close stands the end of the stream, most times here already, and the sink may send both as one.
        let mut fault = Ok(());
        if self.is_at_end_after_close() && matches!(self.close, Close::None) {
            let before = buffer.filled().len();
            match read_once(context, source, &mut buffer) {
                Poll::Ready(Ok(0)) => self.source_ended = buffer.remaining() > 0,
                Poll::Ready(Ok(_)) => passed += self.follow(&buffer.filled()[before..]),
                Poll::Ready(Err(error)) => fault = Err(error),
                Poll::Pending => {}
            }
        }
        let bytes = buffer.filled();
        if !self.broken() && passed > 0 {
            let writing = if self.source_ended && passed == bytes.len() {
                sink.poll_write_last(context, bytes)
            } else {
                Pin::new(sink).poll_write(context, &bytes[..passed])
            };
            let written = match writing {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => {
                    self.on_write_error(&error)?;
                    passed
                }
                Poll::Pending => 0,
            };
            if written > 0 && !self.broken() {
                self.sink = Sink::Unflushed;
            }
            self.waiting.extend_from_slice(&bytes[written..passed]);
        }
        if waited && passed < bytes.len() {
            self.put_close();
        } else if waited {
            self.close_if_at_boundary();
        }
        fault?;
        Ok(Poll::Ready(bytes.len()))
    }

    /// Puts the waiting Close behind what waits already.
    fn put_close(&mut self) {
        if let Close::Waiting { frame, .. } = &self.close {
            self.waiting.extend_from_slice(frame);
            self.close = Close::Sent;
        }
    }

    /// Ends the sink when its time has come.
    fn poll_end(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut impl Transport,
    ) -> Result<(), Fault> {
        if self.write_done() || self.is_held_back() {
            return Ok(());
        }
        if (self.source_ended || self.finishing) && !self.broken() {
            match Pin::new(sink).poll_shutdown(context) {
                Poll::Ready(Ok(())) => self.sink = Sink::Ended,
                Poll::Ready(Err(error)) => self.on_write_error(&error)?,
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// A sink that broke may still have sent something: only this direction ends, the other reads to its end.
    fn on_write_error(&mut self, error: &io::Error) -> Result<(), Fault> {
        if error.kind() == io::ErrorKind::TimedOut {
            return Err(Fault::Stalled);
        }
        self.break_off();
        Ok(())
    }

    fn break_off(&mut self) {
        self.sink = Sink::Broken;
        self.waiting.clear();
    }
}

/// Reads once; returns how much.
fn read_once(
    context: &mut Context<'_>,
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut ReadBuf<'_>,
) -> Poll<Result<usize, Fault>> {
    let before = buffer.filled().len();
    match ready!(Pin::new(source).poll_read(context, buffer)) {
        // TLS that ends without close_notify: most clients just close, and a FIN is what it was.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Poll::Ready(Err(Fault::Source))
        }
        Ok(()) | Err(_) => Poll::Ready(Ok(buffer.filled().len() - before)),
    }
}
