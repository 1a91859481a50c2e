//! The opening handshake of RFC 6455 §4 as a table of rules, both directions, end to end. A request that breaks one gets its status
//! and is counted under its name, and no backend is contacted; an answer that breaks one opens no tunnel. What the rules are in
//! each detail is tested beside the code, in `dataplane/src/handshake/tests.rs`; malformed bytes are in `malformed.rs`.

use tests::backend::{Backend, SWITCHING, fill};
use tests::manifests::Rule;
use tests::raw::{ACCEPT, KEY, upgrade};
use tests::scene::{HOST, SERVICE, Scene};

/// A change of the good request: what is replaced by what, the status, and the outcome that is counted.
type RequestRule = (&'static str, &'static str, &'static str, u16, &'static str);

// One line a rule.
#[rustfmt::skip]
const REQUEST_RULES: &[RequestRule] = &[
    ("the method is GET",            "GET /", "POST /", 405, "bad_method"),
    ("the version is HTTP/1.1",      "HTTP/1.1", "HTTP/1.0", 400, "bad_http_version"),
    ("there is a Host",              "Host: chat.example.com\r\n", "", 400, "bad_host"),
    ("there is one Host",            "Host: ", "Host: chat.example.com\r\nHost: ", 400, "bad_host"),
    ("the Host names a host",        "Host: ", "Host: user@", 400, "bad_host"),
    ("Upgrade is there",             "Upgrade: websocket\r\n", "", 400, "bad_upgrade"),
    ("websocket is alone in it",     "Upgrade: websocket", "Upgrade: h2c, websocket", 400, "bad_upgrade"),
    ("Upgrade is there once",        "Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket", 400, "bad_upgrade"),
    ("Connection names upgrade",     "Connection: Upgrade", "Connection: keep-alive", 400, "bad_connection"),
    ("it nominates no handshake",    "Connection: Upgrade", "Connection: Upgrade, Sec-WebSocket-Key", 400, "bad_connection"),
    ("there is a version",           "Sec-WebSocket-Version: 13\r\n", "", 400, "no_version"),
    ("the version is 13",            "Version: 13", "Version: 8", 426, "wrong_version"),
    ("there is a key",               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "bad_key"),
    ("the key has 16 bytes",         "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400, "bad_key"),
    ("there is no body by length",   "Upgrade: w", "Content-Length: 2\r\nUpgrade: w", 400, "body"),
    ("there is no body by chunks",   "Upgrade: w", "Transfer-Encoding: chunked\r\nUpgrade: w", 400, "body"),
    ("subprotocols are distinct",    "Upgrade: w", "Sec-WebSocket-Protocol: a, a\r\nUpgrade: w", 400, "bad_protocols"),
    ("extensions parse",             "Upgrade: w", "Sec-WebSocket-Extensions: a b\r\nUpgrade: w", 400, "bad_extensions"),
    ("the target is a path",         "GET / ", "GET chat.example.com:443 ", 400, "bad_target"),
    ("an absolute one has the Host", "GET / ", "GET https://other.example.com/ ", 400, "bad_target"),
    ("no dot segments",              "GET / ", "GET /a/../b ", 400, "dot_segments"),
    ("no encoded dot segments",      "GET / ", "GET /a/%2e%2E/b ", 400, "dot_segments"),
    ("no dots behind encoded slashes", "GET / ", "GET /a%2f..%5cb ", 400, "dot_segments"),
];

#[tokio::test]
async fn a_request_that_breaks_a_rule_is_refused_by_name_and_reaches_no_backend() {
    let backend = Backend::accepting();
    let scene = Scene::in_front_of(backend.address).await;
    let counted = async |outcome| {
        let metrics = scene.gateway.metrics().await;
        metrics.sum("ws_ingress_handshakes_total", &[("outcome", outcome)])
    };
    let good = upgrade(HOST, "/", "");
    let mut wrong = Vec::new();
    for (rule, from, to, status, outcome) in REQUEST_RULES {
        assert_eq!(good.matches(from).count(), 1, "{rule}");
        let before = counted(outcome).await;
        let mut client = scene.raw().await;
        let request = good.replace(from, to);
        // What follows a refused handshake is not to be trusted, and must not be read as a request.
        let request = format!("{request}GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(request).await.expect("a request");
        let answer = client.response("GET").await.expect("an answer");
        let (rest, _) = client.end().await;
        let counted = counted(outcome).await - before;
        if (answer.status, counted, rest.len()) != (*status, 1, 0) {
            let status = answer.status;
            wrong.push(format!("{rule}: {status}, {counted} {outcome}, {rest:?}"));
        }
        if answer.status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
        assert_eq!(backend.connections(), 0, "{rule}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn a_request_within_the_rules_is_taken_and_arrives_as_it_was_judged() {
    let backend = Backend::accepting();
    let scene = Scene::in_front_of(backend.address).await;
    let absolute = format!("GET https://{HOST}/a?b ");
    let cases = [
        ("an absolute target", "GET / ", absolute.as_str(), "/a?b"),
        ("any case of websocket", "websocket", "WebSocket", "/"),
        (
            "upgrade among others",
            "Connection: Upgrade",
            "Connection: keep-alive, upgrade",
            "/",
        ),
        (
            "a length of nothing",
            "Upgrade: w",
            "Content-Length: 0\r\nUpgrade: w",
            "/",
        ),
        ("encoded slashes", "GET / ", "GET /a%2Fb%20c ", "/a%2Fb%20c"),
        // No backend could match what hyper leaves out on reading.
        ("a fragment", "GET / ", "GET /a?b#c ", "/a?b"),
    ];
    for (name, from, to, target) in cases {
        let answer = scene
            .ask(&upgrade(HOST, "/", "").replacen(from, to, 1))
            .await;
        assert_eq!(answer.status, 101, "{name}");
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some(ACCEPT),
            "{name}"
        );
        let seen = backend.requests().pop().expect("a request");
        assert_eq!(
            (seen.target.as_str(), seen.all("upgrade")),
            (target, vec!["websocket"]),
            "{name}"
        );
        assert_eq!(seen.all("sec-websocket-key"), [KEY], "{name}");
    }
}

/// A change of the good 101: what is replaced by what. A subprotocol and permessage-deflate were offered.
type AnswerRule = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const ANSWER_RULES: &[AnswerRule] = &[
    ("the version is HTTP/1.1",      "HTTP/1.1", "HTTP/1.0"),
    ("Upgrade is there",             "Upgrade: websocket\r\n", ""),
    ("it is websocket",              "Upgrade: websocket", "Upgrade: h2c"),
    ("it is there once",             "Upgrade: w", "Upgrade: websocket\r\nUpgrade: w"),
    ("Connection is there",          "Connection: Upgrade\r\n", ""),
    ("it names upgrade",             "Connection: Upgrade", "Connection: keep-alive"),
    ("Accept is there",              "Sec-WebSocket-Accept: {accept}\r\n", ""),
    ("it is there once",             "Sec-WebSocket-Accept", "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept"),
    ("it is the key's",              "{accept}", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ("the subprotocol was offered",  "Upgrade: w", "Sec-WebSocket-Protocol: chat.v9\r\nUpgrade: w"),
    ("in the same case",             "Upgrade: w", "Sec-WebSocket-Protocol: Chat.v1\r\nUpgrade: w"),
    ("it is one",                    "Upgrade: w", "Sec-WebSocket-Protocol: chat.v1, chat.v1\r\nUpgrade: w"),
    ("the extension was offered",    "Upgrade: w", "Sec-WebSocket-Extensions: x-foreign\r\nUpgrade: w"),
    ("extensions parse",             "Upgrade: w", "Sec-WebSocket-Extensions: a b\r\nUpgrade: w"),
    ("its parameters too",           "Upgrade: w", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\r\nUpgrade: w"),
    ("none is unknown",              "Upgrade: w", "Sec-WebSocket-Extensions: permessage-deflate; x\r\nUpgrade: w"),
    ("it is agreed to once",         "Upgrade: w", "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\nUpgrade: w"),
];

#[tokio::test]
async fn a_101_that_breaks_a_rule_opens_no_tunnel() {
    let mut backend = Backend::played();
    let scene = Scene::in_front_of(backend.address).await;
    let offers =
        "Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut taken = Vec::new();
    for (rule, from, to) in ANSWER_RULES {
        assert_eq!(SWITCHING.matches(from).count(), 1, "{rule}");
        let answer = SWITCHING.replacen(from, to, 1) + "early";
        let (mut client, mut server, request) =
            scene.asked(&mut backend, upgrade(HOST, "/", offers)).await;
        server
            .send(fill(&answer, &request))
            .await
            .expect("an answer");
        let response = client.response("GET").await.expect("an answer");
        // Neither side hears of the other.
        let bare = !response.text().contains("early") && server.end().await.0.is_empty();
        if response.status != 502 || !bare {
            taken.push(format!("{rule}: {}", response.status));
        }
    }
    assert!(taken.is_empty(), "not 502: {taken:?}");
    let metrics = scene.gateway.metrics().await;
    let refused = metrics.sum("ws_ingress_handshakes_total", &[("outcome", "bad_answer")]);
    assert_eq!(refused, ANSWER_RULES.len() as u64);
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn what_was_offered_may_be_agreed_to() {
    let offers = "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for agreed in [
        "Sec-WebSocket-Protocol: chat.v2\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10; server_no_context_takeover\r\n",
    ] {
        let answer = SWITCHING.replace("Upgrade: w", &format!("{agreed}Upgrade: w"));
        let backend = Backend::answering(&answer);
        let scene = Scene::in_front_of(backend.address).await;
        let answer = scene.ask(&upgrade(HOST, "/", offers)).await;
        assert_eq!(answer.status, 101, "{agreed}");
        let (name, value) = agreed.trim_end().split_once(": ").expect("a field");
        assert_eq!(answer.header(name), Some(value));
    }
}

#[tokio::test]
async fn a_request_behind_a_refused_handshake_is_never_sent_to_a_backend() {
    let mut backend = Backend::played();
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let length = "Content-Length: 9\r\n\r\nown words";
    let chunks = "Transfer-Encoding: chunked\r\n\r\n9\r\nown words\r\n0\r\n\r\n";
    let until_close = "Connection: close\r\n\r\nown words";
    let mut connections = 0;
    for status in [200, 302, 401, 403, 404, 426, 503] {
        for rest in [length, chunks, until_close] {
            let behind = format!("POST /second HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
            let both = upgrade(HOST, "/", "") + &behind;
            let (mut client, mut server, _) = scene.asked(&mut backend, both).await;
            let answer = format!("HTTP/1.1 {status} Own\r\nX-Own: yes\r\n{rest}");
            server.send(answer).await.expect("an answer");
            if rest == until_close {
                server.finish().await.expect("an end");
            }
            let own = client.response("GET").await.expect("an answer");
            assert_eq!((own.status, own.text().as_str()), (status, "own words"));
            assert_eq!(own.header("x-own"), Some("yes"), "{status}");
            // Nobody answers the second one, and the client can tell: the connection ends, and so does the backend's.
            assert_eq!(client.end().await.0, b"", "{status}");
            assert_eq!(server.end().await.0, b"", "{status}");
            connections += 1;
            assert_eq!(backend.connections(), connections, "{status}");
        }
    }
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_502() {
    for method in ["GET", "POST", "HEAD"] {
        let mut backend = Backend::played();
        let rules = [Rule::to(SERVICE).forward()];
        let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
        let length = if method == "POST" {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        let request = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n");
        let (mut client, mut server, _) = scene.asked(&mut backend, request).await;
        let answer = SWITCHING.replace("{accept}", ACCEPT) + "tunnelled";
        server.send(answer).await.expect("an answer");
        let response = client.response(method).await.expect("an answer");
        assert_eq!(response.status, 502, "{method}");
        assert!(!response.text().contains("tunnelled"));
        let _ = client.send("to the backend").await;
        assert_eq!(server.end().await.0, b"", "{method}");
    }
}
