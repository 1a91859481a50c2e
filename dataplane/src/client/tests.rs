use super::*;

const TRUSTED: [&str; 3] = ["10.0.0.0/8", "192.168.7.7/32", "fd00::/8"];

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        (HeaderName::from_static(name), value)
    };
    fields.iter().map(field).collect()
}

/// What a backend is told of a request with these fields from `peer`.
fn told(peer: &str, scheme: Scheme, sent: &[(&'static str, &str)]) -> HeaderMap {
    let sent = headers(sent);
    let trusted = TRUSTED.map(|range| range.parse().unwrap());
    let peer = SocketAddr::new(peer.parse().unwrap(), 40_000);
    let mut told = HeaderMap::new();
    Client::judge(peer, scheme, &sent, &trusted).tell(&sent, &mut told);
    told
}

#[track_caller]
fn check(told: &HeaderMap, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(told.get(*name).unwrap(), value, "{name} in {told:?}");
        assert_eq!(told.get_all(*name).iter().count(), 1, "{name}");
    }
}

/// The client and X-Forwarded-For of a request from a trusted proxy with these lines of it.
#[track_caller]
fn judged(lines: &[&str], client: &str, passed: &str) {
    let sent: Vec<_> = lines
        .iter()
        .map(|line| ("x-forwarded-for", *line))
        .collect();
    let told = told("10.0.0.1", Scheme::Http, &sent);
    check(&told, &[("x-real-ip", client), ("x-forwarded-for", passed)]);
}

#[test]
fn a_strangers_fields_are_replaced() {
    let sent = [
        ("host", "chat.example.com:8443"),
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=198.51.100.1"),
    ];
    check(
        &told("203.0.113.9", Scheme::Https, &sent),
        &[
            ("x-real-ip", "203.0.113.9"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example.com:8443"),
            ("x-forwarded-port", "8443"),
            (
                "forwarded",
                "for=203.0.113.9;host=\"chat.example.com:8443\";proto=https",
            ),
        ],
    );
}

#[test]
fn a_trusted_proxys_fields_stand_and_it_is_appended() {
    let sent = [
        ("host", "inner.example.com"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "HTTPS"),
        ("x-forwarded-host", "chat.example.com"),
        ("x-forwarded-port", "9443"),
        ("forwarded", "for=198.51.100.1"),
    ];
    check(
        &told("10.0.0.1", Scheme::Http, &sent),
        &[
            ("x-real-ip", "203.0.113.9"),
            ("x-forwarded-for", "203.0.113.9, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example.com"),
            ("x-forwarded-port", "9443"),
            (
                "forwarded",
                "for=203.0.113.9;host=chat.example.com;proto=https, for=10.0.0.1",
            ),
        ],
    );
}

#[test]
fn the_scheme_may_be_that_of_a_websocket_url() {
    for (said, over, expected) in [
        ("wss", Scheme::Http, "https"),
        ("WSS", Scheme::Http, "https"),
        ("ws", Scheme::Https, "http"),
        ("wss, https", Scheme::Http, "http"),
    ] {
        let told = told("10.0.0.1", over, &[("x-forwarded-proto", said)]);
        check(&told, &[("x-forwarded-proto", expected)]);
    }
}

#[test]
fn what_a_trusted_proxy_leaves_out_or_garbles_is_ours_to_say() {
    let garbled = [
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-host", "user@evil.example.com"),
        ("x-forwarded-port", "0"),
    ];
    let twice = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example.com"),
        ("x-forwarded-host", "b.example.com"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-port", "443"),
    ];
    for fields in [&[][..], &garbled, &twice] {
        let sent = [&[("host", "chat.example.com")], fields].concat();
        check(
            &told("10.0.0.1", Scheme::Http, &sent),
            &[
                ("x-real-ip", "10.0.0.1"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "chat.example.com"),
                ("x-forwarded-port", "80"),
            ],
        );
    }
}

#[test]
fn the_first_untrusted_address_from_the_right_is_the_client() {
    judged(&["203.0.113.9"], "203.0.113.9", "203.0.113.9, 10.0.0.1");
    // What stands left of it is a stranger's claim: passed on, and not believed.
    judged(
        &["198.51.100.1, 203.0.113.9, 10.2.2.2"],
        "203.0.113.9",
        "198.51.100.1, 203.0.113.9, 10.2.2.2, 10.0.0.1",
    );
    // Several lines are one list (RFC 9110 §5.3).
    judged(
        &["198.51.100.1", "203.0.113.9,192.168.7.7", "10.2.2.2"],
        "203.0.113.9",
        "198.51.100.1, 203.0.113.9,192.168.7.7, 10.2.2.2, 10.0.0.1",
    );
    // All are trusted: the first of them.
    judged(
        &["10.3.3.3, 10.2.2.2"],
        "10.3.3.3",
        "10.3.3.3, 10.2.2.2, 10.0.0.1",
    );
    judged(&[""], "10.0.0.1", "10.0.0.1");
    judged(
        &[" , 203.0.113.9 ,, "],
        "203.0.113.9",
        ", 203.0.113.9 ,,, 10.0.0.1",
    );
}

#[test]
fn what_is_no_address_ends_the_search() {
    for entry in [
        "unknown",
        "203.0.113",
        "_hidden",
        "203.0.113.9:",
        "[fd00::1",
    ] {
        judged(
            &[&format!("198.51.100.1, {entry}, 10.2.2.2")],
            "10.2.2.2",
            &format!("198.51.100.1, {entry}, 10.2.2.2, 10.0.0.1"),
        );
    }
    judged(
        &["198.51.100.1", "\u{e9}", "10.2.2.2"],
        "10.2.2.2",
        "10.2.2.2, 10.0.0.1",
    );
    judged(&["198.51.100.1, \u{e9}"], "10.0.0.1", "10.0.0.1");
}

#[test]
fn addresses_are_read_as_proxies_write_them() {
    for (entry, client) in [
        ("203.0.113.9:5123", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:5123", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ] {
        judged(&[entry], client, &format!("{entry}, 10.0.0.1"));
    }
}

#[test]
fn ipv6_is_quoted_in_forwarded_and_nowhere_else() {
    let sent = [
        ("host", "[2001:db8::1]:8443"),
        ("x-forwarded-for", "2001:db8::9"),
    ];
    check(
        &told("fd00::1", Scheme::Https, &sent),
        &[
            ("x-real-ip", "2001:db8::9"),
            ("x-forwarded-for", "2001:db8::9, fd00::1"),
            (
                "forwarded",
                "for=\"[2001:db8::9]\";host=\"[2001:db8::1]:8443\";proto=https, for=\"[fd00::1]\"",
            ),
        ],
    );
}

#[test]
fn a_loop_of_trusted_proxies_is_followed_only_so_far() {
    let trusted: Vec<_> = (0..100).map(|last| format!("10.1.1.{last}")).collect();
    let sent = headers(&[("x-forwarded-for", &trusted.join(", "))]);
    let ranges = TRUSTED.map(|range| range.parse().unwrap());
    let peer = SocketAddr::from(([10, 0, 0, 1], 1));
    let client = Client::judge(peer, Scheme::Http, &sent, &ranges);
    assert_eq!(client.proxies.len(), MAX_PROXIES);
    assert_eq!(client.address().to_string(), "10.1.1.84:0");
}

#[test]
fn the_port_is_known_of_the_peer_alone() {
    let ranges = TRUSTED.map(|range| range.parse().unwrap());
    let sent = headers(&[("x-forwarded-for", "203.0.113.9:5123")]);
    let client = |peer: [u8; 4]| {
        let peer = SocketAddr::from((peer, 40_000));
        Client::judge(peer, Scheme::Http, &sent, &ranges).address()
    };
    assert_eq!(client([198, 51, 100, 1]).to_string(), "198.51.100.1:40000");
    assert_eq!(client([10, 0, 0, 1]).to_string(), "203.0.113.9:0");
}
