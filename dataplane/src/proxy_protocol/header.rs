//! The bytes of a PROXY header, versions 1 and 2 (HAProxy's `proxy-protocol.txt`, revision 2020/03/05).
//!
//! Pure: the caller reads, never more than [`Parsed::More`] says, because what follows the header is not ours to take. The fuzz
//! target `proxy_header` includes this file as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use route_table::ProxyProtocol;

/// Longest header of version 1, its line end included (§2.1).
pub(crate) const MAX_V1_BYTES: usize = 107;
/// Longest header of version 2: addresses take 52 bytes, and what load balancers add to them (names, ids, a client certificate's
/// subject) has never been seen to fill a page.
pub(crate) const MAX_V2_BYTES: usize = 4096;

/// What version 2 begins with (§2.2). No HTTP request and no ClientHello does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const V1_START: [u8; 6] = *b"PROXY ";
/// The signature, version and command, family and protocol, and the length of the rest.
const V2_FIXED_BYTES: usize = 16;

/// Version 2 with the commands LOCAL and PROXY (§2.2).
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// TCP over IPv4 and IPv6, as version 2 writes them.
const V4: u8 = 0x11;
const V6: u8 = 0x21;

/// How a header says that a connection has no client but the peer itself, such as a health check.
const UNKNOWN: &str = "UNKNOWN";

/// Both ends of a client's connection to the first proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// How far a header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// At least so many bytes are still to come, and belong to the header.
    More(usize),
    /// It ends here. Without ends, the peer speaks for itself (LOCAL, UNKNOWN) or names no TCP over IP.
    Whole(Option<Ends>),
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header has a form that no specification allows")]
    Form,
    #[error("the PROXY header is longer than the limit")]
    TooLong,
}

/// Reads what came of a header so far.
pub(crate) fn parse(received: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |start: &[u8]| {
        let both = start.len().min(received.len());
        received[..both] == start[..both]
    };
    if !begins(&SIGNATURE) && !begins(&V1_START) {
        return Err(Malformed::Missing);
    }
    // Both versions are longer than this, so that one read tells them apart.
    if received.len() < SIGNATURE.len() {
        return Ok(Parsed::More(SIGNATURE.len() - received.len()));
    }
    if begins(&SIGNATURE) {
        parse_v2(received)
    } else {
        parse_v1(received)
    }
}

fn parse_v1(received: &[u8]) -> Result<Parsed, Malformed> {
    let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
        // The line end at least, or its second half.
        let missing = if received.last() == Some(&b'\r') {
            1
        } else {
            2
        };
        if received.len() + missing > MAX_V1_BYTES {
            return Err(Malformed::TooLong);
        }
        return Ok(Parsed::More(missing));
    };
    let line = received[..end].strip_suffix(b"\r");
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let line = line.filter(|line| !line.contains('\r'));
    let words: Vec<_> = line.ok_or(Malformed::Form)?.split(' ').collect();
    let ends = match words[..] {
        // What follows UNKNOWN is to be ignored.
        [_, UNKNOWN, ..] => None,
        [
            _,
            "TCP4",
            source,
            destination,
            source_port,
            destination_port,
        ] => Some(Ends {
            source: v1_end::<Ipv4Addr>(source, source_port)?,
            destination: v1_end::<Ipv4Addr>(destination, destination_port)?,
        }),
        [
            _,
            "TCP6",
            source,
            destination,
            source_port,
            destination_port,
        ] => Some(Ends {
            source: v1_end::<Ipv6Addr>(source, source_port)?,
            destination: v1_end::<Ipv6Addr>(destination, destination_port)?,
        }),
        _ => return Err(Malformed::Form),
    };
    Ok(Parsed::Whole(ends))
}

fn v1_end<A>(address: &str, port: &str) -> Result<SocketAddr, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    // `parse` would take a sign too.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| port.parse().ok()).flatten();
    let address = address.parse::<A>().ok();
    address
        .zip(port)
        .map(|(address, port)| end(address, port))
        .ok_or(Malformed::Form)
}

fn parse_v2(received: &[u8]) -> Result<Parsed, Malformed> {
    let Some((fixed, rest)) = received.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Parsed::More(V2_FIXED_BYTES - received.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED_BYTES + length > MAX_V2_BYTES {
        return Err(Malformed::TooLong);
    }
    let local = match command {
        LOCAL => true,
        PROXY => false,
        // Another version, or a command that is not assigned.
        _ => return Err(Malformed::Form),
    };
    if rest.len() < length {
        return Ok(Parsed::More(length - rest.len()));
    }
    if local {
        return Ok(Parsed::Whole(None));
    }
    // What follows the addresses are TLVs, of which we need none.
    let ends = match family {
        V4 => Some(v2_ends::<4>(rest)?),
        V6 => Some(v2_ends::<16>(rest)?),
        // Unspecified, and UNIX sockets.
        0x00 | 0x31 | 0x32 => None,
        // UDP does not come by TCP; the rest is not assigned.
        _ => return Err(Malformed::Form),
    };
    Ok(Parsed::Whole(ends))
}

fn v2_ends<const N: usize>(rest: &[u8]) -> Result<Ends, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let read = || {
        let (source, rest) = rest.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (source_port, rest) = rest.split_first_chunk::<2>()?;
        let (destination_port, _) = rest.split_first_chunk::<2>()?;
        Some(Ends {
            source: end(*source, u16::from_be_bytes(*source_port)),
            destination: end(*destination, u16::from_be_bytes(*destination_port)),
        })
    };
    read().ok_or(Malformed::Form)
}

/// IPv4 is never written as IPv6 from here on.
fn end(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into().to_canonical(), port)
}

/// The header that names these ends. If only one of them is IPv4, both are written as IPv6: a header has one family.
pub(crate) fn encode(version: ProxyProtocol, ends: Ends) -> Vec<u8> {
    let Ends {
        source,
        destination,
    } = ends;
    let (source_port, destination_port) = (source.port(), destination.port());
    let (family, addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (V4, [source.octets(), destination.octets()].concat())
        }
        (source, destination) => {
            let both = [as_v6(source), as_v6(destination)];
            (V6, both.map(|address| address.octets()).concat())
        }
    };
    match version {
        ProxyProtocol::V1 => {
            let (name, source, destination) = if family == V4 {
                ("TCP4", source.ip(), destination.ip())
            } else {
                let (source, destination) = (as_v6(source.ip()), as_v6(destination.ip()));
                ("TCP6", source.into(), destination.into())
            };
            format!("PROXY {name} {source} {destination} {source_port} {destination_port}\r\n")
                .into_bytes()
        }
        ProxyProtocol::V2 => {
            // Twice 16 and twice 2 bytes at most.
            let length = u8::try_from(addresses.len() + 4).unwrap_or(0);
            let mut header = SIGNATURE.to_vec();
            header.extend([PROXY, family, 0, length]);
            header.extend(addresses);
            header.extend(source_port.to_be_bytes());
            header.extend(destination_port.to_be_bytes());
            header
        }
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests;
