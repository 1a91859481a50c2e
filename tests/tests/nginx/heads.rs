//! More of the list: header fields, targets, and messages whose end two readers could see in different places.

use tests::scene::HOST;

use crate::actions::{get, request, sends};
use crate::compare::Exchange;

pub(crate) fn headers() -> Vec<Exchange> {
    let sent = |name, more: &str| sends(name, get(more));
    let hosted = |name, host: &str| sends(name, get("").replace(HOST, host));
    let cookie = |bytes: usize| format!("Cookie: {}\r\n", "c".repeat(bytes));
    vec![
        sent("X-Real-IP of one's own", "X-Real-IP: 10.9.9.9\r\n"),
        sent(
            "X-Forwarded-For of one's own",
            "X-Forwarded-For: 10.9.9.9\r\n",
        ),
        sent(
            "X-Forwarded-Proto of one's own",
            "X-Forwarded-Proto: spoofed\r\n",
        ),
        sent("Forwarded of one's own", "Forwarded: for=10.9.9.9\r\n"),
        sent(
            "X_Real_IP, which CGI takes for X-Real-IP",
            "X_Real_IP: 10.9.9.9\r\n",
        ),
        sent("a header with an underscore", "X_Own: 1\r\n"),
        sent(
            "a header twice",
            "X-Own: 1\r\nX-Own: 2\r\nAccept: a\r\nX-Own: 1\r\n",
        ),
        sent("a header with nothing in it", "X-Own:\r\n"),
        sent("a header with bytes above 127", "X-Own: \u{e9}\r\n"),
        sent(
            "headers of one hop",
            "Connection: X-Nominated\r\nX-Nominated: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n",
        ),
        sent(
            "credentials for the proxy",
            "Proxy-Authorization: Basic YTpi\r\nProxy-Connection: close\r\n",
        ),
        sent(
            "an upgrade to h2c beside an ordinary request",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        ),
        sent("a cookie of 4 kB", &cookie(4_000)),
        sent("a cookie of 12 kB", &cookie(12_000)),
        sent("a cookie of 40 kB", &cookie(40_000)),
        sent("200 headers", &"X-Own: 1\r\n".repeat(200)),
        hosted("a Host in capitals", "CHAT.example.com"),
        hosted("a Host with a port", "chat.example.com:8443"),
        hosted("a Host with a dot at its end", "chat.example.com."),
        hosted("an unknown Host", "unknown.example.com"),
        hosted("another Host of the proxy", "rt.example.com"),
        hosted("a Host that is an address", "127.0.0.1"),
        hosted("a Host with user information", "a@chat.example.com"),
        hosted("a Host with a path", "chat.example.com/x"),
        hosted("an empty Host", ""),
        sends("no Host", "GET /chat HTTP/1.1\r\n\r\n"),
        sent("two Hosts", "Host: chat.example.com\r\n"),
    ]
}

pub(crate) fn targets() -> Vec<Exchange> {
    let paths = [
        ("the path itself", "/chat"),
        ("a slash at its end", "/chat/"),
        ("a path below", "/chat/a/b"),
        ("a path that only begins alike", "/chatter"),
        ("a location with a slash, without it", "/feed"),
        ("a location with a slash", "/feed/"),
        ("a path in capitals", "/CHAT"),
        ("a path with a parameter", "/chat/x;v=1"),
        ("an encoded space", "/chat/a%20b"),
        ("an encoded letter of the location", "/ch%61t"),
        ("an encoded slash behind the location", "/chat%2Fx"),
        ("an encoded slash below", "/chat/a%2Fb"),
        ("an encoded percent sign", "/chat/100%25"),
        ("an encoded zero byte", "/chat/%00"),
        ("a percent sign alone", "/chat/%zz"),
        ("two slashes below", "/chat//x"),
        ("two slashes at the start", "//chat"),
        ("one dot", "/chat/./x"),
        ("two dots that stay inside", "/chat/a/../x"),
        ("two dots into another location", "/chat/../feed/x"),
        ("two dots out of everything", "/../chat"),
        ("encoded dots", "/chat/%2e%2e/feed/x"),
        ("a backslash", "/chat/a\\b"),
        ("three dots", "/chat/.../x"),
        ("dots in the query", "/chat?x=/../y"),
        ("an empty query", "/chat?"),
        ("a fragment", "/chat#part"),
        ("a path with bytes above 127", "/chat/\u{e9}"),
        ("quotes and angle brackets", "/chat/\"<x>\""),
        ("an absolute target", "http://chat.example.com/chat"),
        (
            "an absolute target with https",
            "https://chat.example.com/chat",
        ),
        (
            "an absolute target for another host",
            "http://rt.example.com/chat",
        ),
        (
            "an absolute target without a path",
            "http://chat.example.com",
        ),
        ("an asterisk", "*"),
        ("a target without a slash", "chat"),
    ];
    let mut all: Vec<_> = paths
        .into_iter()
        .map(|(name, path)| sends(name, request("GET", path, "")))
        .collect();
    for (name, length) in [
        ("a target of 7 kB", 7_000),
        ("a target of 12 kB", 12_000),
        ("a target of 70 kB", 70_000),
    ] {
        let path = format!("/chat/{}", "t".repeat(length));
        all.push(sends(name, request("GET", &path, "")));
    }
    all
}

/// Messages whose end two readers could see in different places (RFC 9112 §11.2).
pub(crate) fn framing() -> Vec<Exchange> {
    let posted = |name, more: &str, body: &str| sends(name, request("POST", "/chat", more) + body);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunks = "4\r\nbody\r\n0\r\n\r\n";
    vec![
        posted(
            "a length and chunks",
            &format!("Content-Length: 4\r\n{chunked}"),
            chunks,
        ),
        posted(
            "chunks and a length",
            &format!("{chunked}Content-Length: 4\r\n"),
            chunks,
        ),
        posted(
            "two equal lengths",
            &"Content-Length: 4\r\n".repeat(2),
            "body",
        ),
        posted(
            "two lengths",
            "Content-Length: 4\r\nContent-Length: 5\r\n",
            "body!",
        ),
        posted("a length with a sign", "Content-Length: +4\r\n", "body"),
        posted(
            "a coding that nobody knows",
            "Transfer-Encoding: xchunked\r\n",
            chunks,
        ),
        posted(
            "a coding before chunks",
            "Transfer-Encoding: gzip, chunked\r\n",
            chunks,
        ),
        posted("chunks by HTTP/1.0", chunked, chunks).change("HTTP/1.1", "HTTP/1.0"),
        posted("a chunk extension", chunked, "4;a=b\r\nbody\r\n0\r\n\r\n"),
        posted(
            "a trailer",
            chunked,
            "4\r\nbody\r\n0\r\nX-Trailer: 1\r\n\r\n",
        ),
        posted(
            "a trailer that would frame",
            chunked,
            "4\r\nbody\r\n0\r\nContent-Length: 9\r\n\r\n",
        ),
        sends("lines without CR", get("").replace("\r\n", "\n")),
        sends("a space before the colon", get("X-Own : 1\r\n")),
        sends("a folded line", get("X-Own: 1\r\n 2\r\n")),
        sends("a carriage return in a value", get("X-Own: 1\r2\r\n")),
        sends("a zero byte in a value", get("X-Own: 1\x002\r\n")),
        sends("a line without a colon", get("X-Own\r\n")),
        sends("a name that is no token", get("X(Own: 1\r\n")),
        sends("an empty line first", format!("\r\n{}", get(""))),
        sends(
            "two spaces in the request line",
            get("").replace("GET /chat", "GET  /chat"),
        ),
        sends(
            "a tab in the request line",
            get("").replace("GET /chat", "GET\t/chat"),
        ),
        sends("HTTP/1.2", get("").replace("HTTP/1.1", "HTTP/1.2")),
        sends("HTTP/2.0", get("").replace("HTTP/1.1", "HTTP/2.0")),
        sends("HTTP/0.9", "GET /chat\r\n"),
        sends("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ]
}

impl Exchange {
    fn change(mut self, from: &str, to: &str) -> Self {
        let text = String::from_utf8(self.request).expect("text");
        self.request = text.replace(from, to).into_bytes();
        self
    }
}
