//! Request lines, hosts, and upgrades.

use tests::raw::upgrade;
use tests::scene::HOST;

use crate::Verdict::{Passed, PassedLast, Refused};
use crate::{Attack, SMUGGLED, attack, get};

/// Request lines (RFC 9112 §3).
pub(crate) fn targets() -> Vec<Attack> {
    let lines = [
        "GET /judged HTTP/1.1 GET /smuggled HTTP/1.1",
        "GET  /judged HTTP/1.1",
        "GET /judged  HTTP/1.1",
        " GET /judged HTTP/1.1",
        "GET /judged HTTP/1.1 ",
        "GET\t/judged\tHTTP/1.1",
        "GET\0 /judged HTTP/1.1",
        "GET /judged\0 HTTP/1.1",
        "GET /jud\rged HTTP/1.1",
        "GET /judged HTTP/1.1\rX: y",
        "GET /judged http/1.1",
        "GET /judged HTTP/1.2",
        "GET /judged HTTP/2",
        "GET /judged HTTP/3.0",
        "GET /judged HTTP/1.1\x0b",
        "GET /judged",
        "GET",
        "G(T /judged HTTP/1.1",
        "/judged HTTP/1.1",
        "GET judged HTTP/1.1",
        "GET * HTTP/1.1",
        "CONNECT chat.example.com:443 HTTP/1.1",
        "CONNECT /judged HTTP/1.1",
        "CONNECT http://chat.example.com/judged HTTP/1.1",
        "GET /judged/../smuggled HTTP/1.1",
        "GET /judged/%2e%2E/smuggled HTTP/1.1",
        "GET /judged/..%2fsmuggled HTTP/1.1",
        "GET /judged/..\\smuggled HTTP/1.1",
        "GET /judged/..;/smuggled HTTP/1.1",
        "GET /judged%00 HTTP/1.1",
        "GET /judged%0 HTTP/1.1",
        "GET http://evil.example.com/judged HTTP/1.1",
        "GET http://chat.example.com@evil.example.com/ HTTP/1.1",
        "GET http://evil@chat.example.com/judged HTTP/1.1",
        "GET http://chat.example.com:81/judged HTTP/1.1",
        "GET http:///judged HTTP/1.1",
        "GET chat.example.com:443 HTTP/1.1",
    ];
    let host = format!("Host: {HOST}\r\n\r\n");
    let mut all: Vec<_> = lines
        .into_iter()
        .map(|line| {
            attack(
                format!("{line:?}"),
                format!("{line}\r\n{host}{SMUGGLED}"),
                Refused,
            )
        })
        .collect();
    for target in [
        "/judged%0d%0aX:%20y",
        "/judged?%0d%0a%00",
        "/judged?a=/../b",
        "/judged;a=b",
    ] {
        // Encoded they are a part of the path, and stay encoded.
        let line: &'static str = format!("GET {target}").leak();
        all.push(attack(
            format!("{target:?}"),
            format!("{line} HTTP/1.1\r\n{host}"),
            Passed(line, String::new()),
        ));
    }
    all
}

/// Hosts (RFC 9112 §3.2), and no HTTP/1.1 at all.
pub(crate) fn hosts() -> Vec<Attack> {
    let mut all = Vec::new();
    for host in [
        "Host: chat.example.com\r\nHost: evil.example.com",
        "Host: chat.example.com\r\nHost: chat.example.com",
        "Host: chat.example.com, evil.example.com",
        "Host: evil.example.com",
        "Host: chat.example.com evil",
        "Host: chat.example.com\tevil",
        "Host: chat.example.com/x",
        "Host: chat.example.com#x",
        "Host: chat.example.com?x",
        "Host: x@chat.example.com",
        "Host: chat.example.com:80:80",
        "Host: chat.example.com:99999",
        "Host: chat.example.com:-1",
        "Host: chat.example.com\\x",
        "Host:",
        "Host : chat.example.com",
        "Host:\r\n chat.example.com",
        "Host: [chat.example.com]",
        "Host: chat.example.com\0",
        "Host: chat..example.com",
        "Host: %63hat.example.com",
        "X: y",
        "Host: http://chat.example.com",
    ] {
        all.push(attack(
            format!("{host:?}"),
            format!("GET /judged HTTP/1.1\r\n{host}\r\n\r\n{SMUGGLED}"),
            Refused,
        ));
    }
    all.push(attack(
        "the preface of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        Refused,
    ));
    all.push(attack(
        "HTTP/0.9",
        format!("GET /judged\r\n{SMUGGLED}"),
        Refused,
    ));
    all
}

/// Upgrades with something behind them (RFC 9110 §7.8).
pub(crate) fn upgrades() -> Vec<Attack> {
    let length = SMUGGLED.len();
    let old = upgrade(HOST, "/judged", "").replace("Version: 13", "Version: 8");
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    let with = |more: &str, body: &str| upgrade(HOST, "/judged", more) + body;
    vec![
        attack(
            "a request behind a refused upgrade",
            old + SMUGGLED,
            Refused,
        ),
        attack(
            "an upgrade with a body",
            with(&format!("Content-Length: {length}\r\n"), SMUGGLED),
            Refused,
        ),
        attack(
            "an upgrade with chunks",
            with(
                "Transfer-Encoding: chunked\r\n",
                &format!("0\r\n\r\n{SMUGGLED}"),
            ),
            Refused,
        ),
        attack(
            "an upgrade with both lengths",
            with(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                &format!("0\r\n\r\n{SMUGGLED}"),
            ),
            Refused,
        ),
        attack(
            "an upgrade to h2c and its preface",
            get(h2c) + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            PassedLast("GET /judged", String::new()),
        ),
        attack(
            "an upgrade to h2c and websocket",
            with("Upgrade: h2c\r\n", SMUGGLED),
            Refused,
        ),
        attack(
            "an upgrade by POST",
            with("", SMUGGLED).replace("GET /judged", "POST /judged"),
            Refused,
        ),
    ]
}
