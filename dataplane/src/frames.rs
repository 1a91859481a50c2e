//! A header-only scanner of WebSocket frames, and the one frame that the proxy writes: Close.
//!
//! In: the bytes of one direction, in any pieces. Out: where frames and messages end, so that a Close can be put in without
//! tearing anything, and whether the peer has sent a Close itself. Payloads are skipped, never unmasked or inflated. A stream
//! that breaks RFC 6455 §5.2 is marked invalid and from then on only passes through: its boundaries cannot be trusted.

/// Who sends the scanned bytes: a client masks every frame, a server none (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

/// How far [`Scanner::scan`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the end of the bytes.
    End,
    /// To the first end of a frame.
    Frame,
    /// To the first end of a frame that also ends its message.
    Message,
}

/// Longest header: two bytes, a 64-bit length and a masking key.
const MAX_HEADER_BYTES: usize = 14;
const OPCODE_CLOSE: u8 = 0x8;

/// Where one direction of a stream stands.
#[derive(Debug)]
pub(crate) struct Scanner {
    sender: Sender,
    header: [u8; MAX_HEADER_BYTES],
    header_len: u8,
    /// Payload bytes still to come of the frame whose header is complete.
    payload: u64,
    in_message: bool,
    close_seen: bool,
    invalid: bool,
}

impl Scanner {
    pub(crate) fn new(sender: Sender) -> Self {
        Self {
            sender,
            header: [0; MAX_HEADER_BYTES],
            header_len: 0,
            payload: 0,
            in_message: false,
            close_seen: false,
            invalid: false,
        }
    }

    /// Scans `bytes` and returns how many were taken: fewer than all only when `until` was reached before their end.
    pub(crate) fn scan(&mut self, bytes: &[u8], until: Until) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.invalid {
            if self.payload == 0 {
                taken += self.take_header(&bytes[taken..]);
            }
            let rest = bytes.len() - taken;
            let step = usize::try_from(self.payload).map_or(rest, |payload| payload.min(rest));
            self.payload -= step as u64;
            taken += step;
            if self.is_at(until) {
                return taken;
            }
        }
        bytes.len()
    }

    /// Whether the stream stands at the boundary that `until` names.
    pub(crate) fn is_at(&self, until: Until) -> bool {
        let boundary = !self.invalid && self.header_len == 0 && self.payload == 0;
        match until {
            Until::End => false,
            Until::Frame => boundary,
            Until::Message => boundary && !self.in_message,
        }
    }

    /// Whether a whole header of a Close frame passed. Nothing may follow it (RFC 6455 §5.5.1).
    pub(crate) fn close_seen(&self) -> bool {
        self.close_seen
    }

    /// Takes a whole header from `bytes`, or a byte of one that was cut; returns how much that is.
    fn take_header(&mut self, bytes: &[u8]) -> usize {
        if self.header_len == 0
            && let Some((header, length)) = Header::parse(bytes)
        {
            self.begin(&header);
            return length;
        }
        self.header[usize::from(self.header_len)] = bytes[0];
        self.header_len += 1;
        if let Some((header, _)) = Header::parse(&self.header[..usize::from(self.header_len)]) {
            self.header_len = 0;
            self.begin(&header);
        }
        1
    }

    fn begin(&mut self, header: &Header) {
        let (fin, opcode) = (header.first & 0x80 != 0, header.first & 0x0f);
        let control = opcode & 0x8 != 0;
        let known = matches!(opcode, 0x0..=0x2 | 0x8..=0xa);
        // A continuation only inside a message, a new data frame only outside of one (RFC 6455 §5.4).
        let in_turn = control || (opcode == 0) == self.in_message;
        let control_fits = !control || (fin && header.payload <= 125);
        let masked_rightly = header.masked == (self.sender == Sender::Client);
        // RSV2 and RSV3 belong to no extension that is let through; RSV1 is permessage-deflate's (RFC 7692 §6).
        let reserved = header.first & 0x30 != 0;
        if !known
            || !in_turn
            || !control_fits
            || !masked_rightly
            || reserved
            || header.payload > i64::MAX as u64
        {
            self.invalid = true;
            return;
        }
        if !control {
            self.in_message = !fin;
        }
        self.close_seen |= opcode == OPCODE_CLOSE;
        self.payload = header.payload;
    }
}

/// What stands before a frame's payload (RFC 6455 §5.2).
struct Header {
    /// FIN, RSV1 to RSV3 and the opcode.
    first: u8,
    masked: bool,
    payload: u64,
}

impl Header {
    /// The header that `bytes` begin with, and its length; nothing while it is not whole.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let masked = second & 0x80 != 0;
        let (payload, length_bytes) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
            short => (u64::from(short), 0),
        };
        let length = 2 + length_bytes + if masked { 4 } else { 0 };
        let header = Self {
            first,
            masked,
            payload,
        };
        (bytes.len() >= length).then_some((header, length))
    }
}

/// A Close frame with `code` and `reason` (RFC 6455 §5.5.1), masked if a client sends it. `reason` is at most 123 bytes.
pub(crate) fn close_frame(sender: Sender, code: u16, reason: &'static str) -> Vec<u8> {
    debug_assert!(
        reason.len() <= 123,
        "a control frame carries at most 125 bytes"
    );
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload.truncate(125);
    let length = u8::try_from(payload.len()).unwrap_or(125);
    let mut frame = vec![0x80 | OPCODE_CLOSE];
    match sender {
        Sender::Server => frame.push(length),
        Sender::Client => {
            frame.push(0x80 | length);
            // The key keeps a script from choosing the bytes on the wire (RFC 6455 §10.3); these bytes are ours and constant.
            let key = fastrand::u32(..).to_be_bytes();
            frame.extend_from_slice(&key);
            for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
    }
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(sender: Sender, first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if sender == Sender::Client { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(mask | u8::try_from(length).unwrap()),
            length @ 126..=0xffff => {
                frame.push(mask | 0x7e);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(mask | 0x7f);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if sender == Sender::Client {
            frame.extend_from_slice(&[0; 4]);
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn stops_at_the_end_of_the_message_not_of_its_first_fragment() {
        let mut bytes = frame(Sender::Server, 0x01, b"hel");
        let first = bytes.len();
        bytes.extend(frame(Sender::Server, 0x89, b"ping"));
        bytes.extend(frame(Sender::Server, 0x80, b"lo"));
        let message = bytes.len();
        bytes.extend(frame(Sender::Server, 0x82, b"next"));
        let mut scanner = Scanner::new(Sender::Server);
        assert_eq!(scanner.scan(&bytes[..1], Until::End), 1);
        assert!(!scanner.is_at(Until::Frame));
        assert_eq!(scanner.scan(&bytes[1..], Until::Frame), first - 1);
        assert_eq!(
            scanner.scan(&bytes[first..], Until::Message),
            message - first
        );
        assert!(!scanner.close_seen() && !scanner.invalid);
    }

    #[test]
    fn sees_a_close_and_long_lengths() {
        let mut scanner = Scanner::new(Sender::Client);
        for length in [0, 125, 126, 65_535, 65_536] {
            let bytes = frame(Sender::Client, 0x82, &vec![0x88; length]);
            assert_eq!(scanner.scan(&bytes, Until::Frame), bytes.len());
            assert!(scanner.is_at(Until::Message) && !scanner.close_seen());
        }
        scanner.scan(&close_frame(Sender::Client, 1001, "bye"), Until::End);
        assert!(scanner.close_seen() && !scanner.invalid);
    }

    #[test]
    fn broken_framing_is_invalid_and_passes_through() {
        for (sender, bytes) in [
            (Sender::Server, frame(Sender::Client, 0x81, b"masked")),
            (Sender::Client, frame(Sender::Server, 0x81, b"bare")),
            (Sender::Server, frame(Sender::Server, 0x83, b"opcode")),
            (
                Sender::Server,
                frame(Sender::Server, 0x80, b"continues nothing"),
            ),
            (
                Sender::Server,
                frame(Sender::Server, 0x09, b"fragmented ping"),
            ),
            (Sender::Server, frame(Sender::Server, 0x88, &[0; 126])),
            (Sender::Server, frame(Sender::Server, 0xa1, b"rsv2")),
        ] {
            let mut scanner = Scanner::new(sender);
            assert_eq!(scanner.scan(&bytes, Until::Frame), bytes.len(), "{bytes:?}");
            assert!(scanner.invalid && !scanner.is_at(Until::Frame), "{bytes:?}");
        }
    }

    #[test]
    fn close_frame_unmasks_to_its_code_and_reason() {
        let frame = close_frame(Sender::Client, 1001, "drain");
        let key = &frame[2..6];
        let payload = frame[6..]
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect::<Vec<_>>();
        assert_eq!(
            (&frame[..2], payload),
            (&[0x88, 0x87][..], b"\x03\xe9drain".to_vec())
        );
        assert_eq!(
            close_frame(Sender::Server, 1001, "drain"),
            b"\x88\x07\x03\xe9drain"
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            sender in prop::sample::select(vec![Sender::Client, Sender::Server]),
            lengths in prop::collection::vec(prop_oneof![8 => 0_usize..400, 1 => 65_534_usize..65_539], 1..12),
            cuts in prop::collection::vec(1_usize..60, 1..40),
        ) {
            let frames = lengths.iter().map(|length| frame(sender, 0x82, &vec![7; *length])).collect::<Vec<_>>();
            let bytes = frames.concat();
            let mut scanner = Scanner::new(sender);
            let (mut at, mut ends) = (0, Vec::new());
            for cut in cuts.iter().cycle() {
                let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { break };
                at += scanner.scan(&rest[..(*cut).min(rest.len())], Until::Frame);
                if scanner.is_at(Until::Frame) {
                    ends.push(at);
                }
            }
            let expected = frames.iter().scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            });
            prop_assert_eq!(ends, expected.collect::<Vec<_>>());
        }
    }
}
