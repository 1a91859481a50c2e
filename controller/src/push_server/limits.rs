//! Every limit of the push server, with the reason for its default. Message sizes are the protocol's own (`push`).

use std::time::Duration;

use push::SetLimits;

/// Most calls at a time on one connection. A dataplane makes one, and it lasts.
pub(super) const CALLS: u32 = 1;
/// Most bytes of a call's metadata: a token of 8 KiB and what gRPC adds.
pub(super) const HEADER_BYTES: u32 = 16 << 10;
/// Bytes that a peer may send ahead: enough for a Hello to come in without waiting, little for a peer that nobody knows yet.
pub(super) const WINDOW_BYTES: u32 = 128 << 10;
/// Bytes that HTTP/2 buffers for a slow reader before it waits, besides the part that it was given last and the one after that.
pub(super) const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Parts that wait for HTTP/2: the one that is next.
pub(super) const PARTS_AHEAD: usize = 1;

/// Streams that a pod may begin at once: a restart of its container, and leaders that follow one another, come to a few.
pub(super) const STREAM_BURST: u32 = 10;
/// And after that one every so often: each one may cost the reading of a Hello of 4 MiB.
pub(super) const STREAM_INTERVAL: Duration = Duration::from_secs(1);

/// Limits that a test may want otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What a set may be: what a dataplane takes.
    pub set: SetLimits,
    /// Connections at a time, each with one stream. A dataplane has one, so this is the size of the largest installation.
    pub connections: usize,
    /// Of those, connections that have not proved who they are; one more ends one of them.
    pub unproven: usize,
    /// Of those, from one address, so that one stranger cannot take all. Several dataplanes may share the host's network.
    pub unproven_per_address: usize,
    /// From the accepted connection to the call with its token: TLS and one request. A dataplane gives up dialling after as long.
    pub arrival: Duration,
    /// From the accepted connection to a token that was accepted: what is left after `arrival` is for the review, at most 10 s.
    pub proof: Duration,
    /// From there to the Hello, and as long for the turn to be asked for one.
    pub hello: Duration,
    /// Dataplanes that are read a Hello from and not yet brought nearer to what it says, at a time: what each of them holds is known
    /// to its stream alone, 4 MiB on the wire and about three times as much read.
    pub greetings: usize,
    /// Bytes of updates that were made and are not yet written to a socket, over all streams; the rest waits its turn. Who does not
    /// read keeps three parts of it (one that HTTP/2 is sending, one that it takes next, one that waits for it) until `part` is over,
    /// or `answer` after the last part, and the connection has ended.
    pub queued_bytes: usize,
    /// Until HTTP/2 takes the next part from us: 1 MiB at least every 30 s, or the reader is too slow to be up to date.
    pub part: Duration,
    /// From the last part of an update to its answer: decoding and building a table of 60,000 resources takes seconds.
    pub answer: Duration,
    /// Quiet time after which HTTP/2 pings the peer; a connection that died is noticed after this and `pong`.
    pub ping: Duration,
    /// Until the answer to such a ping.
    pub pong: Duration,
    /// For the last word of a stream to leave, and then for the connection to end in order.
    pub farewell: Duration,
    /// First and longest wait before a dataplane that refused an update gets the full set.
    pub retry: [Duration; 2],
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            set: SetLimits::default(),
            connections: 1024,
            unproven: 256,
            unproven_per_address: 32,
            arrival: Duration::from_secs(5),
            proof: Duration::from_secs(15),
            hello: Duration::from_secs(10),
            greetings: 16,
            queued_bytes: 64 << 20,
            part: Duration::from_secs(30),
            answer: Duration::from_mins(1),
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(10),
            farewell: Duration::from_secs(1),
            retry: [Duration::from_millis(500), Duration::from_secs(30)],
        }
    }
}
