//! Where a message ends, and its lines.

use crate::Verdict::{Cut, Passed, PassedLast, Refused};
use crate::{Attack, SMUGGLED, attack, get, post, whole};

/// Two lengths, or one that two readers read differently (RFC 9112 §6.3, §11.2).
pub(crate) fn lengths() -> Vec<Attack> {
    let last = |body: &str| PassedLast("POST /judged", body.to_owned());
    let length = SMUGGLED.len();
    let chunk = format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    let empty = format!("0\r\n\r\n{SMUGGLED}");
    let both = format!(
        "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
        empty.len()
    );
    let turned = "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n";
    vec![
        attack("CL.TE", post(&both, &empty), last("")),
        attack("TE.CL", post(turned, &chunk), last(SMUGGLED)),
        attack(
            "a body that is a request",
            post(&format!("Content-Length: {length}\r\n"), SMUGGLED),
            whole(SMUGGLED),
        ),
        attack(
            "chunks that are a request",
            post("Transfer-Encoding: chunked\r\n", &chunk),
            whole(SMUGGLED),
        ),
        attack(
            "Connection nominates the length",
            post(
                &format!("Connection: Content-Length\r\nContent-Length: {length}\r\n"),
                SMUGGLED,
            ),
            whole(SMUGGLED),
        ),
        attack(
            "Connection nominates the coding",
            post(
                "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
                &chunk,
            ),
            whole(SMUGGLED),
        ),
        attack(
            "Connection nominates Host",
            post(
                &format!("Connection: Host\r\nContent-Length: {length}\r\n"),
                SMUGGLED,
            ),
            whole(SMUGGLED),
        ),
        attack(
            "a tab before the coding",
            post("Transfer-Encoding:\tchunked\r\n", &chunk),
            whole(SMUGGLED),
        ),
        attack(
            "chunks by HTTP/1.0",
            post("Transfer-Encoding: chunked\r\n", &empty).replace("HTTP/1.1", "HTTP/1.0"),
            Refused,
        ),
        attack(
            "a coding behind a bare LF",
            post(
                &format!(
                    "X: y\nTransfer-Encoding: chunked\r\nContent-Length: {}\r\n",
                    empty.len()
                ),
                &empty,
            ),
            last(""),
        ),
    ]
}

/// A coding or a length that one reader takes and another does not.
pub(crate) fn spellings() -> Vec<Attack> {
    let empty = format!("0\r\n\r\n{SMUGGLED}");
    let mut all = Vec::new();
    for coding in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: chunked\r",
        "Transfer-Encoding: chun\rked",
        " Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:",
    ] {
        let more = format!("{coding}\r\nContent-Length: {}\r\n", empty.len());
        all.push(attack(format!("{coding:?}"), post(&more, &empty), Refused));
    }
    for value in [
        "5, 5",
        "5,6",
        "5 5",
        "+5",
        "-5",
        "0x5",
        "5\x0b",
        "5.0",
        "",
        "18446744073709551621",
        "184467440737095516150",
        "5\r\nContent-Length: 6",
    ] {
        let more = format!("Content-Length: {value}\r\n");
        all.push(attack(
            format!("Content-Length: {value:?}"),
            post(&more, &format!("hello{SMUGGLED}")),
            Refused,
        ));
    }
    all
}

/// Chunks whose borders are in doubt (RFC 9112 §7.1).
pub(crate) fn chunks() -> Vec<Attack> {
    let cut = [
        (
            "a size beyond 64 bits",
            "10000000000000004\r\nbody\r\n0\r\n\r\n".to_owned(),
        ),
        ("a negative size", "-4\r\nbody\r\n0\r\n\r\n".to_owned()),
        ("a size with a sign", "+4\r\nbody\r\n0\r\n\r\n".to_owned()),
        ("a size with 0x", "0x4\r\nbody\r\n0\r\n\r\n".to_owned()),
        ("an empty size", "\r\nbody\r\n0\r\n\r\n".to_owned()),
        (
            "a size with a word behind it",
            format!("4 x\r\nbody\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        ("sizes without CR", format!("4\nbody\n0\n\n{SMUGGLED}")),
        (
            "a chunk that is longer than it says",
            format!("3\r\nbody\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a chunk without its end",
            format!("4\r\nbody0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "an extension that hides a line",
            format!("4;a=\nb\r\nbody\r\n0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "an extension of 1 MB",
            format!("4;{}\r\nbody\r\n0\r\n\r\n{SMUGGLED}", "a".repeat(1_000_000)),
        ),
        (
            "trailers of 1 MB",
            format!(
                "4\r\nbody\r\n0\r\n{}\r\n{SMUGGLED}",
                "X-T: ttttttttttt\r\n".repeat(60_000)
            ),
        ),
        (
            "a request line among the trailers",
            format!("4\r\nbody\r\n0\r\n{SMUGGLED}"),
        ),
    ];
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut all: Vec<_> = cut
        .into_iter()
        .map(|(name, body)| attack(name, post(chunked, &body), Cut))
        .collect();
    for (name, body) in [
        ("an extension", "4;name=value\r\nbody\r\n0;x\r\n\r\n"),
        (
            "an extension that is a chunk",
            "4;\"5\"\r\nbody\r\n0\r\n\r\n",
        ),
        ("zeros before the size", "00000004\r\nbody\r\n000\r\n\r\n"),
        (
            "trailers that frame",
            "4\r\nbody\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n",
        ),
        (
            "trailers that name the client",
            "4\r\nbody\r\n0\r\nX-Forwarded-For: 10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\n\r\n",
        ),
    ] {
        all.push(attack(name, post(chunked, body), whole("body")));
    }
    all
}

/// Lines that end, begin or break where they should not (RFC 9112 §2.2, §5).
pub(crate) fn lines() -> Vec<Attack> {
    let refused = [
        "X-A: b\r\n c\r\n",
        "X-A: b\r\n\tc\r\n",
        " X-A: b\r\n",
        "X-A : b\r\n",
        "X-A\t: b\r\n",
        "X A: b\r\n",
        ": b\r\n",
        "X-A\r\n",
        "X-A: b\0\r\n",
        "X-A\0: b\r\n",
        "X-A: b\rX-B: c\r\n",
        "X-A: \x7f\r\n",
        "X-A: \x01\r\n",
        "X(A): b\r\n",
        "X\u{e9}: b\r\n",
        "X-A: b\r\r\n",
    ];
    let mut all: Vec<_> = refused
        .into_iter()
        .map(|line| attack(format!("{line:?}"), get(line) + SMUGGLED, Refused))
        .collect();
    let long = |count: usize| format!("X-A: {}\r\n", "a".repeat(count));
    all.push(attack(
        "a field of 100 kB",
        get(&long(100_000)) + SMUGGLED,
        Refused,
    ));
    all.push(attack(
        "129 fields",
        get(&"X-A: b\r\n".repeat(129)) + SMUGGLED,
        Refused,
    ));
    all.push(attack(
        "two fields of 20 kB",
        get(&long(20_000).repeat(2)) + SMUGGLED,
        Refused,
    ));
    all.push(attack(
        "empty lines first",
        format!("\r\n\r\n\r\n{}", get("")),
        Passed("GET /judged", String::new()),
    ));
    all
}
