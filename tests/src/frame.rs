//! WebSocket frames as bytes (RFC 6455 §5.2), for tests that care where a frame begins and ends.

/// Opcodes used here.
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// Any mask will do; a fixed one keeps a failure readable.
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// One frame, its payload unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub last: bool,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close frame.
    pub fn close_code(&self) -> Option<u16> {
        match (self.opcode, self.payload.as_slice()) {
            (CLOSE, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }
}

/// A whole frame as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(opcode, payload.len(), 0x80);
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// A whole frame as a server sends it.
pub fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(opcode, payload.len(), 0);
    bytes.extend(payload);
    bytes
}

fn head(opcode: u8, length: usize, mask_bit: u8) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(mask_bit | short),
        (_, Ok(medium)) => {
            bytes.push(mask_bit | 0x7e);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 0x7f);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes
}

/// The first frame in `bytes` and its length, or `None` while it is not whole.
pub fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    let mut mask = [0; 4];
    if masked {
        mask.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let payload = bytes.get(at..at + length)?;
    let payload = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    Some((
        Frame {
            opcode: first & 0x0f,
            last: first & 0x80 != 0,
            masked,
            payload,
        },
        at + length,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_frame_reads_back_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            for (bytes, masked) in [
                (masked(BINARY, &payload), true),
                (unmasked(BINARY, &payload), false),
            ] {
                assert!(
                    parse(&bytes[..bytes.len() - 1]).is_none(),
                    "a cut frame of {length} bytes was taken"
                );
                let (frame, used) = parse(&bytes).expect("a whole frame");
                assert_eq!(used, bytes.len());
                assert_eq!(
                    frame,
                    Frame {
                        opcode: BINARY,
                        last: true,
                        masked,
                        payload: payload.clone()
                    }
                );
            }
        }
    }
}
