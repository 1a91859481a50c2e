//! The table of rules. Each rule of RFC 6455 §4 has its case, by name; `tests/tests/handshake.rs` has the same ones end to end.

use http::{Request, Response};

use super::*;

const GOOD: &[(&str, &str)] = &[
    ("host", "chat.example.com"),
    ("upgrade", "websocket"),
    ("connection", "keep-alive, Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

const KEY: &str = "sec-websocket-key";
const VERSION: &str = "sec-websocket-version";
const PROTOCOL: &str = "sec-websocket-protocol";
const EXTENSIONS: &str = "sec-websocket-extensions";

/// How a case differs from the good request, or from the good answer.
#[derive(Debug)]
enum Change {
    Nothing,
    Without(&'static str),
    With(&'static str, &'static str),
    And(&'static str, &'static str),
}

use Change::{And, Nothing, With, Without};

fn changed(good: &[(&'static str, &'static str)], change: &Change) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in good {
        headers.append(*name, HeaderValue::from_static(value));
    }
    match change {
        Nothing => {}
        Without(name) => {
            headers.remove(*name);
        }
        With(name, value) => {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        And(name, value) => {
            headers.append(*name, HeaderValue::from_static(value));
        }
    }
    headers
}

fn request(method: &str, version: Version, change: &Change) -> request::Parts {
    let builder = Request::builder().method(method).version(version);
    let mut parts = builder.uri("/chat").body(()).unwrap().into_parts().0;
    parts.headers = changed(GOOD, change);
    parts
}

#[test]
fn rules_of_the_request() {
    use Reject as R;
    // One line a rule.
    #[rustfmt::skip]
    let cases: &[(&str, Change, Option<Reject>)] = &[
        ("the sample of RFC 6455 §1.2", Nothing, None),
        ("no Upgrade", Without("upgrade"), Some(R::Upgrade)),
        ("another protocol", With("upgrade", "h2c"), Some(R::Upgrade)),
        ("another beside it", With("upgrade", "websocket, h2c"), Some(R::Upgrade)),
        ("with a version", With("upgrade", "websocket/13"), Some(R::Upgrade)),
        ("Upgrade twice", And("upgrade", "websocket"), Some(R::Upgrade)),
        ("any case of websocket", With("upgrade", "WebSocket"), None),
        ("no Connection", Without("connection"), Some(R::Connection)),
        ("Connection without upgrade", With("connection", "close"), Some(R::Connection)),
        ("upgrade in a second line", And("connection", "te"), None),
        ("the key is nominated", And("connection", "Sec-WebSocket-Key"), Some(R::Connection)),
        ("Origin is nominated", And("connection", "Origin"), Some(R::Connection)),
        ("Host is nominated", And("connection", "host"), Some(R::Connection)),
        ("no version", Without(VERSION), Some(R::NoVersion)),
        ("two versions", And(VERSION, "13"), Some(R::NoVersion)),
        ("version 8", With(VERSION, "8"), Some(R::Version)),
        ("version 013", With(VERSION, "013"), Some(R::Version)),
        ("no key", Without(KEY), Some(R::Key)),
        ("two keys", And(KEY, "dGhlIHNhbXBsZSBub25jZQ=="), Some(R::Key)),
        ("a key of 15 bytes", With(KEY, "dGhlIHNhbXBsZSBub25j"), Some(R::Key)),
        ("a key of 17 bytes", With(KEY, "dGhlIHNhbXBsZSBub25jZWU="), Some(R::Key)),
        ("a key without padding", With(KEY, "dGhlIHNhbXBsZSBub25jZQ"), Some(R::Key)),
        ("a key that is no base64", With(KEY, "not base64 at all!!!===="), Some(R::Key)),
        ("a body by length", And("content-length", "5"), Some(R::Body)),
        ("a body of no length", And("content-length", "0"), None),
        ("a body by chunks", And("transfer-encoding", "chunked"), Some(R::Body)),
        ("subprotocols", And(PROTOCOL, "a, b"), None),
        ("a subprotocol twice", And(PROTOCOL, "a, a"), Some(R::Protocols)),
        ("an empty subprotocol", And(PROTOCOL, "a,,b"), Some(R::Protocols)),
        ("a subprotocol that is no token", And(PROTOCOL, "a b"), Some(R::Protocols)),
        ("extensions", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=\"10\", foo"), None),
        ("an extension that is no token", And(EXTENSIONS, "permessage deflate"), Some(R::Extensions)),
        ("an empty parameter", And(EXTENSIONS, "a;;b"), Some(R::Extensions)),
        ("a quoted value that is no token", And(EXTENSIONS, "a; b=\"c d\""), Some(R::Extensions)),
    ];
    for (name, change, expected) in cases {
        let judged = check_opening(&request("GET", Version::HTTP_11, change));
        assert_eq!(judged.err(), *expected, "{name}");
    }
}

#[test]
fn rules_of_the_request_line() {
    for (method, version, expected) in [
        ("GET", Version::HTTP_11, None),
        ("POST", Version::HTTP_11, Some(Reject::Method)),
        ("get", Version::HTTP_11, Some(Reject::Method)),
        ("GET", Version::HTTP_10, Some(Reject::HttpVersion)),
    ] {
        let judged = check_opening(&request(method, version, &Nothing));
        assert_eq!(judged.err(), expected, "{method} {version:?}");
    }
}

#[test]
fn the_accept_is_that_of_the_rfc() {
    let opening = check_opening(&request("GET", Version::HTTP_11, &Nothing)).unwrap();
    assert_eq!(opening.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

const GOOD_ANSWER: &[(&str, &str)] = &[
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
];

/// What an answer with this change comes to, when `a`, `b` and these extensions were offered.
fn judge(offer: &'static str, change: &Change) -> Result<bool, Reject> {
    let mut request = request("GET", Version::HTTP_11, &And(EXTENSIONS, offer));
    let protocols = HeaderValue::from_static("a, b");
    request.headers.insert(PROTOCOL, protocols);
    let opening = check_opening(&request).unwrap();
    let builder = Response::builder().status(101);
    let mut answer = builder.body(()).unwrap().into_parts().0;
    answer.headers = changed(GOOD_ANSWER, change);
    check_answer(&answer.headers, &opening).map(|agreed| agreed.frames_are_known)
}

#[test]
fn rules_of_the_answer() {
    const ACCEPT: &str = "sec-websocket-accept";
    const BAD: Result<bool, Reject> = Err(Reject::BadAnswer);
    // One line a rule.
    #[rustfmt::skip]
    let cases: &[(&str, Change, Result<bool, Reject>)] = &[
        ("the sample of RFC 6455 §1.3", Nothing, Ok(true)),
        ("no Upgrade", Without("upgrade"), BAD),
        ("another protocol", With("upgrade", "h2c"), BAD),
        ("Upgrade twice", And("upgrade", "websocket"), BAD),
        ("no Connection", Without("connection"), BAD),
        ("Connection without upgrade", With("connection", "close"), BAD),
        ("Connection names more that ends here", And("connection", "keep-alive, x-own"), Ok(true)),
        ("Accept is nominated", And("connection", "Sec-WebSocket-Accept"), BAD),
        ("the subprotocol is nominated", And("connection", "x, sec-websocket-protocol"), BAD),
        ("no Accept", Without(ACCEPT), BAD),
        ("another Accept", With(ACCEPT, "AAAA"), BAD),
        ("the Accept in another case", With(ACCEPT, "S3PPLMBITXAQ9KYGZZHZRBK+XOO="), BAD),
        ("two Accepts", And(ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), BAD),
        ("a subprotocol that was offered", And(PROTOCOL, "b"), Ok(true)),
        ("one that was not", And(PROTOCOL, "c"), BAD),
        ("one in another case", And(PROTOCOL, "B"), BAD),
        ("two subprotocols", And(PROTOCOL, "a, b"), BAD),
        ("an extension that was offered", And(EXTENSIONS, "permessage-deflate"), Ok(true)),
        ("one whose frames are not known", And(EXTENSIONS, "x-own"), Ok(false)),
        ("one that was not offered", And(EXTENSIONS, "x-foreign"), BAD),
        ("one beside it", And(EXTENSIONS, "x-own, x-foreign"), BAD),
        ("an extension that is no token", And(EXTENSIONS, "x own"), BAD),
    ];
    for (name, change, expected) in cases {
        let judged = judge("permessage-deflate, x-own", change);
        assert_eq!(judged, *expected, "{name}");
    }
}

#[test]
fn rules_of_permessage_deflate() {
    // What was offered, what the answer agrees to, whether it may.
    // One line a rule.
    #[rustfmt::skip]
    let cases: &[(&str, Change, bool)] = &[
        ("permessage-deflate", And(EXTENSIONS, "permessage-deflate; client_no_context_takeover"), true),
        ("permessage-deflate", And(EXTENSIONS, "permessage-deflate; server_no_context_takeover"), true),
        ("permessage-deflate", And(EXTENSIONS, "permessage-deflate; server_max_window_bits=10"), true),
        ("permessage-deflate", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=10"), false),
        ("permessage-deflate", And(EXTENSIONS, "permessage-deflate; x=1"), false),
        ("permessage-deflate", And(EXTENSIONS, "permessage-deflate, permessage-deflate"), false),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=10"), true),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=\"10\""), true),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate"), true),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits"), false),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=7"), false),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=16"), false),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=010"), false),
        ("permessage-deflate; client_max_window_bits", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9"), false),
        ("permessage-deflate; client_max_window_bits=12", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=12"), true),
        ("permessage-deflate; client_max_window_bits=12", And(EXTENSIONS, "permessage-deflate; client_max_window_bits=13"), false),
        ("permessage-deflate; server_max_window_bits=12", And(EXTENSIONS, "permessage-deflate; server_max_window_bits=9"), true),
        ("permessage-deflate; server_max_window_bits=12", And(EXTENSIONS, "permessage-deflate; server_max_window_bits=13"), false),
        ("permessage-deflate; server_max_window_bits=12", And(EXTENSIONS, "permessage-deflate"), false),
        ("permessage-deflate; server_no_context_takeover", And(EXTENSIONS, "permessage-deflate"), false),
        ("permessage-deflate; server_no_context_takeover", And(EXTENSIONS, "permessage-deflate; server_no_context_takeover"), true),
        ("permessage-deflate; server_no_context_takeover", And(EXTENSIONS, "permessage-deflate; server_no_context_takeover=1"), false),
        // The second offer is there for servers that cannot do the first.
        ("permessage-deflate; server_max_window_bits=12, permessage-deflate", And(EXTENSIONS, "permessage-deflate"), true),
        ("permessage-deflate; client_max_window_bits, permessage-deflate", And(EXTENSIONS, "Permessage-Deflate; Client_Max_Window_Bits=9"), true),
    ];
    for (offer, change, allowed) in cases {
        let expected = if *allowed {
            Ok(true)
        } else {
            Err(Reject::BadAnswer)
        };
        assert_eq!(judge(offer, change), expected, "{offer} -> {change:?}");
    }
}

/// The hostname that a target and its Host are for.
type Found = Result<Option<&'static str>, Reject>;

#[test]
fn rules_of_the_target() {
    use Reject as R;
    let one = &["a.example.com"][..];
    let found = Ok(Some("a.example.com"));
    // One line a rule.
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[&str], Found)] = &[
        ("a Host with a port", "/", &["A.example.com:8443"], found),
        ("a Host with an empty port", "/", &["a.example.com:"], found),
        ("an address", "/", &["[::1]:8443"], Ok(None)),
        ("no Host", "/", &[], Err(R::Host)),
        ("two Hosts", "/", &["a.example.com", "a.example.com"], Err(R::Host)),
        ("user information", "/", &["user@a.example.com"], Err(R::Host)),
        ("a space", "/", &["a b"], Err(R::Host)),
        ("a port that is a name", "/", &["a.example.com:http"], Err(R::Host)),
        ("a port that is too high", "/", &["a.example.com:65536"], Err(R::Host)),
        ("an empty Host", "/", &[""], Err(R::Host)),
        ("absolute-form", "http://a.example.com/x", one, found),
        ("absolute-form for another", "http://b.example.com/x", one, Err(R::Target)),
        ("asterisk-form", "*", one, Err(R::Target)),
        ("dot segments", "/a/../b", one, Err(R::DotSegments)),
        ("one at the end", "/a/.", one, Err(R::DotSegments)),
        ("encoded dots", "/a/%2E%2e/b", one, Err(R::DotSegments)),
        ("encoded slashes", "/a%2f..%5cb", one, Err(R::DotSegments)),
        ("a parameter", "/a/..;x=1/b", one, Err(R::DotSegments)),
        ("an encoded parameter", "/a/%2e%2E%3bx/b", one, Err(R::DotSegments)),
        ("names with dots", "/a..b/...", one, found),
        ("a percent at the end", "/a%", one, Err(R::Target)),
        ("half an escape", "/a%2", one, Err(R::Target)),
        ("an escape that is none", "/a%zz", one, Err(R::Target)),
        ("a percent before an escape", "/%%41", one, Err(R::Target)),
        ("a NUL", "/a%00b", one, Err(R::Target)),
        ("a sign in an escape", "/a%+1", one, Err(R::Target)),
        ("escapes", "/a%20b/%C3%a9/100%25", one, found),
        ("a percent in the query", "/?%", one, found),
    ];
    for (name, uri, hosts, expected) in cases {
        let builder = hosts.iter().fold(Request::get(*uri), |builder, host| {
            builder.header("host", *host)
        });
        let judged = check_host_and_path(&builder.body(()).unwrap().into_parts().0);
        let judged = judged.map(|hostname| hostname.map(|hostname| hostname.to_string()));
        let expected = expected.map(|name| name.map(ToString::to_string));
        assert_eq!(judged, expected, "{name}: {uri} {hosts:?}");
    }
}
