//! Where frames begin and end in a stream of bytes that comes in any pieces (RFC 6455 §5.2). Nothing is collected: a payload
//! is handed on as it comes.

use crate::frame::{BINARY, TEXT};

/// The longest head: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub opcode: u8,
    pub length: u64,
    /// `None` in what servers send.
    pub mask: Option<[u8; 4]>,
}

/// One thing that the scanner came upon, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    Head(Head),
    /// Part of the payload; its first byte is the one at this offset of the payload.
    Payload(u64, &'a [u8]),
    /// The frame of this opcode is whole.
    End(u8),
}

/// The state of one direction.
#[derive(Default)]
pub struct Scanner {
    held: Vec<u8>,
    frame: Option<(Head, u64)>,
}

impl Scanner {
    /// Goes through the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen<'_>)) {
        loop {
            let (head, offset) = match self.frame.take() {
                Some(frame) => frame,
                None => match self.head(&mut bytes) {
                    Some(head) => {
                        seen(Seen::Head(head));
                        (head, 0)
                    }
                    None => return,
                },
            };
            let left = usize::try_from(head.length - offset).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at(left.min(bytes.len()));
            bytes = rest;
            if !part.is_empty() {
                seen(Seen::Payload(offset, part));
            }
            let offset = offset + part.len() as u64;
            if offset < head.length {
                self.frame = Some((head, offset));
                return;
            }
            seen(Seen::End(head.opcode));
        }
    }

    /// Takes a head off the bytes, or keeps what there is of it.
    fn head(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        if self.held.is_empty() {
            // Nearly always: the head lies whole in the bytes, and nothing has to be copied.
            if let Some((head, length)) = parse(bytes) {
                *bytes = &bytes[length..];
                return Some(head);
            }
        }
        let before = self.held.len();
        let taken = bytes.len().min(LONGEST_HEAD - before);
        self.held.extend_from_slice(&bytes[..taken]);
        match parse(&self.held) {
            Some((head, length)) => {
                *bytes = &bytes[length - before..];
                self.held.clear();
                Some(head)
            }
            None => None,
        }
    }
}

/// The head at the start of these bytes and its length, when it is whole.
fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(bytes.get(at..at + 4)?.try_into().ok()?);
        at += 4;
    }
    let opcode = first & 0x0f;
    Some((
        Head {
            opcode,
            length,
            mask,
        },
        at,
    ))
}

/// Whether frames of this opcode are a client's message here; everyone in the bench sends messages of one frame.
pub fn is_message(opcode: u8) -> bool {
    matches!(opcode, TEXT | BINARY)
}

/// Takes the mask from part of a payload that begins at this offset.
pub fn unmask(payload: &mut [u8], offset: u64, mask: [u8; 4]) {
    // As long as a vector register, so that the loop over it becomes one instruction.
    let mut pattern = [0; 32];
    for (at, byte) in (offset % 4..).zip(&mut pattern) {
        let index = (at % 4) as usize;
        *byte = mask[index];
    }
    for chunk in payload.chunks_mut(pattern.len()) {
        for (byte, mask) in chunk.iter_mut().zip(&pattern) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CLOSE, masked, unmasked};

    /// What a stream holds: opcode and payload of each frame.
    fn scan(stream: &[u8], piece: usize) -> Vec<(u8, Vec<u8>)> {
        let (mut scanner, mut frames) = (Scanner::default(), Vec::new());
        let (mut payload, mut mask) = (Vec::new(), None);
        for bytes in stream.chunks(piece) {
            scanner.feed(bytes, |seen| match seen {
                Seen::Head(head) => mask = head.mask,
                Seen::Payload(offset, bytes) => {
                    let start = payload.len();
                    payload.extend_from_slice(bytes);
                    if let Some(mask) = mask {
                        unmask(&mut payload[start..], offset, mask);
                    }
                }
                Seen::End(opcode) => frames.push((opcode, std::mem::take(&mut payload))),
            });
        }
        frames
    }

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (opcode, length) in [
            (BINARY, 0),
            (TEXT, 125),
            (BINARY, 126),
            (BINARY, 65_536),
            (CLOSE, 2),
        ] {
            #[expect(clippy::cast_possible_truncation, reason = "a pattern")]
            let payload: Vec<u8> = (0..length).map(|at: u32| at as u8).collect();
            stream.extend(masked(opcode, &payload));
            stream.extend(unmasked(opcode, &payload));
            expected.push((opcode, payload.clone()));
            expected.push((opcode, payload));
        }
        for piece in [1, 2, 3, 7, 13, 1_000, stream.len()] {
            assert!(scan(&stream, piece) == expected, "pieces of {piece}");
        }
    }
}
