//! The list of actions: what a client sends, and what the backend answers. Each name is that of its row in
//! `docs/coming-from-nginx.md`, if the two differ in it.

use tests::backend::SWITCHING;
use tests::raw::{KEY, upgrade};
use tests::scene::HOST;

use crate::compare::Exchange;
use crate::heads;

const OK: &str = "HTTP/1.1 200 OK\r\nX-From-Backend: yes\r\nContent-Length: 4\r\n\r\nwell";

pub(crate) fn all() -> Vec<Exchange> {
    [
        handshakes(),
        answers_to_handshakes(),
        ordinary(),
        answers_to_ordinary(),
        heads::headers(),
        heads::targets(),
        heads::framing(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn action(name: &'static str, request: impl Into<Vec<u8>>, answer: &str) -> Exchange {
    Exchange {
        name,
        request: request.into(),
        answer: answer.as_bytes().to_vec(),
        answers: 1,
    }
}

/// An upgrade that the backend would accept.
fn asks(name: &'static str, request: impl Into<Vec<u8>>) -> Exchange {
    action(name, request, SWITCHING)
}

/// An ordinary request that the backend would answer with 200.
pub(crate) fn sends(name: &'static str, request: impl Into<Vec<u8>>) -> Exchange {
    action(name, request, OK)
}

pub(crate) fn request(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

pub(crate) fn get(more: &str) -> String {
    request("GET", "/chat", more)
}

fn handshakes() -> Vec<Exchange> {
    let good = |more: &str| upgrade(HOST, "/chat", more);
    let changed = |from: &str, to: &str| good("").replace(from, to);
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let version = "Sec-WebSocket-Version: 13\r\n";
    let early = [good("").into_bytes(), b"\x81\x85\0\0\0\0hello".to_vec()].concat();
    vec![
        asks("a handshake", good("")),
        asks(
            "a handshake with a query",
            upgrade(HOST, "/chat?a=b&c=%20", ""),
        ),
        asks(
            "a handshake with cookie, origin and agent",
            good("Cookie: a=b\r\nOrigin: https://app.example.com\r\nUser-Agent: x\r\n"),
        ),
        asks("a handshake with first bytes behind it", early),
        asks(
            "a handshake of Firefox",
            changed("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ),
        asks(
            "a handshake in other letters",
            changed(
                "Upgrade: websocket\r\nConnection: Upgrade",
                "upgrade: WebSocket\r\nconnection: upgrade",
            ),
        ),
        asks(
            "a handshake with Content-Length: 0",
            good("Content-Length: 0\r\n"),
        ),
        asks("a handshake by POST", changed("GET", "POST")),
        asks("a handshake by HTTP/1.0", changed("HTTP/1.1", "HTTP/1.0")),
        asks("a handshake without a version", changed(version, "")),
        asks(
            "a handshake of version 8",
            changed("Version: 13", "Version: 8"),
        ),
        asks("a handshake with two versions", good(version)),
        asks("a handshake without a key", changed(&key, "")),
        asks("a handshake with a short key", changed(KEY, "AAAA")),
        asks("a handshake with two keys", good(&key)),
        asks(
            "a handshake for two protocols",
            changed("Upgrade: websocket", "Upgrade: h2c, websocket"),
        ),
        asks(
            "a handshake with two Upgrade lines",
            good("Upgrade: websocket\r\n"),
        ),
        asks(
            "a handshake without Connection",
            changed("Connection: Upgrade\r\n", ""),
        ),
        asks(
            "a handshake whose Connection nominates the key",
            changed(
                "Connection: Upgrade",
                "Connection: Upgrade, Sec-WebSocket-Key",
            ),
        ),
        asks(
            "a handshake with a body",
            good("Content-Length: 5\r\n") + "hello",
        ),
        asks(
            "a handshake with chunks",
            good("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n",
        ),
        asks(
            "a handshake that offers a subprotocol twice",
            good("Sec-WebSocket-Protocol: a, a\r\n"),
        ),
        asks(
            "a handshake with a broken list of extensions",
            good("Sec-WebSocket-Extensions: ;\r\n"),
        ),
        asks(
            "a handshake for h2c",
            changed("Upgrade: websocket", "Upgrade: h2c")
                .replace(&key, "")
                .replace(version, ""),
        ),
        asks(
            "a handshake for another host of the proxy",
            upgrade("rt.example.com", "/chat", ""),
        ),
        asks(
            "a handshake for an unknown host",
            upgrade("unknown.example.com", "/chat", ""),
        ),
        asks("a handshake on a path of nobody", upgrade(HOST, "/", "")),
    ]
}

fn answers_to_handshakes() -> Vec<Exchange> {
    let offers = "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let answered = |name, answer: &str| action(name, upgrade(HOST, "/chat", offers), answer);
    let with = |more: &str| SWITCHING.replace("\r\n\r\n", &format!("\r\n{more}\r\n\r\n"));
    let own = |line: &str, more: &str| {
        format!(
            "HTTP/1.1 {line}\r\nX-From-Backend: yes\r\nX-Why: because\r\n{more}Content-Length: 5\r\n\r\nwords"
        )
    };
    vec![
        answered(
            "the backend agrees to a subprotocol",
            &with("Sec-WebSocket-Protocol: chat.v2"),
        ),
        answered(
            "the backend agrees to permessage-deflate",
            &with("Sec-WebSocket-Extensions: permessage-deflate"),
        ),
        answered(
            "the backend sets cookies with its 101",
            &with("Set-Cookie: a=1\r\nSet-Cookie: b=2"),
        ),
        answered(
            "the backend answers 401",
            &own(
                "401 Unauthorized",
                "WWW-Authenticate: Bearer realm=\"chat\"\r\n",
            ),
        ),
        answered("the backend answers 403", &own("403 Forbidden", "")),
        answered("the backend answers 404", &own("404 Not Found", "")),
        answered(
            "the backend answers 302",
            &own("302 Found", "Location: https://login.example.com/\r\n"),
        ),
        answered(
            "the backend answers 426",
            &own("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
        ),
        answered(
            "the backend answers 503",
            &own("503 Service Unavailable", "Retry-After: 7\r\n"),
        ),
        answered("the backend answers 200", &own("200 OK", "")),
        answered(
            "the backend refuses with chunks",
            "HTTP/1.1 403 No\r\nX-From-Backend: yes\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n",
        ),
        answered(
            "the backend refuses until it ends",
            "HTTP/1.1 403 No\r\nX-From-Backend: yes\r\nConnection: close\r\n\r\nwords",
        ),
        answered(
            "the backend's 101 has a wrong Accept",
            &SWITCHING.replace("{accept}", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ),
        answered(
            "the backend's 101 has no Accept",
            &SWITCHING.replace("Sec-WebSocket-Accept: {accept}\r\n", ""),
        ),
        answered(
            "the backend's 101 has no Upgrade",
            &SWITCHING.replace("Upgrade: websocket\r\n", ""),
        ),
        answered(
            "the backend's 101 has a subprotocol that was not offered",
            &with("Sec-WebSocket-Protocol: chat.v9"),
        ),
        answered(
            "the backend's 101 has an extension that was not offered",
            &with("Sec-WebSocket-Extensions: x-other"),
        ),
    ]
}

fn ordinary() -> Vec<Exchange> {
    let twice = |name, first: &str, second: &str| Exchange {
        answers: 2,
        ..sends(name, format!("{first}{second}"))
    };
    let big = "b".repeat(2 * 1024 * 1024);
    let length = big.len();
    vec![
        sends("GET", get("")),
        sends("GET with a query", request("GET", "/chat?a=b", "")),
        sends(
            "POST with a length",
            request("POST", "/chat", "Content-Length: 5\r\n") + "hello",
        ),
        sends(
            "POST of 2 MiB",
            request("POST", "/chat", &format!("Content-Length: {length}\r\n")) + &big,
        ),
        sends(
            "POST with chunks",
            request("POST", "/chat", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n",
        ),
        sends(
            "POST with nothing",
            request("POST", "/chat", "Content-Length: 0\r\n"),
        ),
        sends(
            "PUT, PATCH, DELETE: any method",
            request("PATCH", "/chat", "Content-Length: 2\r\n") + "{}",
        ),
        sends("OPTIONS", request("OPTIONS", "/chat", "")),
        sends("HEAD", request("HEAD", "/chat", "")),
        sends("a method of one's own", request("NOTIFY", "/chat", "")),
        sends("a method in small letters", request("get", "/chat", "")),
        sends("TRACE", request("TRACE", "/chat", "")),
        sends(
            "CONNECT",
            format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n"),
        ),
        sends(
            "Expect: 100-continue, the body sent at once",
            request(
                "POST",
                "/chat",
                "Expect: 100-continue\r\nContent-Length: 5\r\n",
            ) + "hello",
        ),
        sends(
            "HTTP/1.0 with a Host",
            get("").replace("HTTP/1.1", "HTTP/1.0"),
        ),
        sends("HTTP/1.0 without a Host", "GET /chat HTTP/1.0\r\n\r\n"),
        twice(
            "two requests in one write",
            &get("X-First: 1\r\n"),
            &request("GET", "/chat/next", ""),
        ),
        twice(
            "a request behind a body",
            &(request("POST", "/chat", "Content-Length: 5\r\n") + "hello"),
            &request("GET", "/chat/next", ""),
        ),
        twice(
            "a request behind one that nobody takes",
            &request("GET", "/other", ""),
            &request("GET", "/chat/next", ""),
        ),
        twice(
            "a request behind a refused handshake",
            &upgrade(HOST, "/chat", "").replace("Version: 13", "Version: 8"),
            &request("GET", "/chat/next", ""),
        ),
    ]
}

fn answers_to_ordinary() -> Vec<Exchange> {
    let answered = |name, answer: &str| action(name, get(""), answer);
    let head = "HTTP/1.1 200 OK\r\nX-From-Backend: yes\r\n";
    let big = "c".repeat(300_000);
    vec![
        answered(
            "204",
            "HTTP/1.1 204 No Content\r\nX-From-Backend: yes\r\n\r\n",
        ),
        action(
            "304",
            get("If-None-Match: \"a\"\r\n"),
            "HTTP/1.1 304 Not Modified\r\nX-From-Backend: yes\r\nETag: \"a\"\r\n\r\n",
        ),
        action(
            "HEAD with a length",
            request("HEAD", "/chat", ""),
            "HTTP/1.1 200 OK\r\nX-From-Backend: yes\r\nConnection: close\r\nContent-Length: 77\r\n\r\n",
        ),
        answered(
            "an answer in chunks",
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n1\r\n!\r\n0\r\n\r\n"),
        ),
        answered(
            "an answer of 300 kB",
            &format!("{head}Content-Length: 300000\r\n\r\n{big}"),
        ),
        answered(
            "an answer until the end",
            &format!("{head}Connection: close\r\n\r\nwell"),
        ),
        answered(
            "an answer with two cookies",
            &format!("{head}Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"),
        ),
        answered(
            "an answer with hop-by-hop headers",
            &format!(
                "{head}Connection: X-Nominated\r\nX-Nominated: 1\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nContent-Length: 0\r\n\r\n"
            ),
        ),
        answered(
            "an answer with X-Accel-Expires and X-Accel-Buffering",
            &format!(
                "{head}X-Accel-Expires: 9\r\nX-Accel-Buffering: no\r\nContent-Length: 0\r\n\r\n"
            ),
        ),
        answered(
            "an answer with X-Accel-Redirect",
            &format!("{head}X-Accel-Redirect: /inside\r\nContent-Length: 0\r\n\r\n"),
        ),
        answered(
            "an answer with Location of the backend",
            &format!("{head}Location: http://chat/x\r\nContent-Length: 0\r\n\r\n")
                .replace("200 OK", "302 Found"),
        ),
        answered(
            "an error of the backend",
            "HTTP/1.1 500 Oh No\r\nX-From-Backend: yes\r\nContent-Length: 4\r\n\r\nwhat",
        ),
        answered(
            "an answer that breaks off",
            &format!("{head}Connection: close\r\nContent-Length: 9\r\n\r\nwell"),
        ),
        answered(
            "chunks that break off",
            &format!("{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nwell"),
        ),
        answered(
            "an answer with a length and chunks",
            &format!(
                "{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n"
            ),
        ),
        answered(
            "an answer with two lengths",
            &format!(
                "{head}Connection: close\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nwell!"
            ),
        ),
        answered(
            "an answer that is longer than it says",
            &format!(
                "{head}Content-Length: 4\r\n\r\nwellHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
            ),
        ),
        answered(
            "an answer with a folded line",
            &format!("{head}X-A: b\r\n c\r\nContent-Length: 4\r\n\r\nwell"),
        ),
        answered(
            "an answer without a status",
            "220 mail.example.com ESMTP\r\nConnection: close\r\n\r\n",
        ),
        answered("a 101 to an ordinary request", SWITCHING),
        answered(
            "a 103 before the answer",
            &format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"),
        ),
    ]
}
