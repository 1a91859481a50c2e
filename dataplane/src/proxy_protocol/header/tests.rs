use super::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4_ENDS: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x14, 0x03, 0x01, 0xbb];

fn v6_ends() -> Vec<u8> {
    let source = "2001:db8::9".parse::<Ipv6Addr>().unwrap().octets();
    let destination = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    [&source[..], &destination, &[0x14, 0x03, 0x01, 0xbb]].concat()
}

/// What the bytes come to when each read gives as much as was asked for, and nothing of what follows is touched.
#[track_caller]
fn read_to_end(bytes: &[u8]) -> Result<Option<Ends>, Malformed> {
    let stream = [bytes, b"what follows"].concat();
    let mut taken = 0;
    loop {
        match parse(&stream[..taken])? {
            Parsed::More(more) => {
                assert!(more > 0);
                taken += more;
            }
            Parsed::Whole(ends) => {
                assert_eq!(taken, bytes.len(), "another length was taken");
                return Ok(ends);
            }
        }
        assert!(taken <= stream.len(), "a header that never ends");
    }
}

#[track_caller]
fn whole(bytes: impl AsRef<[u8]>, expected: Option<(&str, &str)>) {
    let expected = expected.map(|(source, destination)| Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    });
    assert_eq!(read_to_end(bytes.as_ref()), Ok(expected));
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, expected: Malformed) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(bytes);
    assert_eq!(read_to_end(bytes), Err(expected), "{shown:?}");
}

#[test]
fn version_1_names_the_client_or_nobody() {
    whole(
        "PROXY TCP4 203.0.113.9 192.0.2.1 5123 443\r\n",
        Some(("203.0.113.9:5123", "192.0.2.1:443")),
    );
    whole(
        "PROXY TCP6 2001:db8::9 2001:db8::1 5123 443\r\n",
        Some(("[2001:db8::9]:5123", "[2001:db8::1]:443")),
    );
    whole(
        "PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 0 65535\r\n",
        Some(("203.0.113.9:0", "192.0.2.1:65535")),
    );
    whole("PROXY UNKNOWN\r\n", None);
    whole("PROXY UNKNOWN ffff::1 whatever 1\r\n", None);
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(longest.len(), MAX_V1_BYTES);
    whole(longest, None);
}

#[test]
fn version_1_has_one_form() {
    for line in [
        "PROXY TCP4 203.0.113.9 192.0.2.1 5123\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 5123 443 1\r\n",
        "PROXY TCP4  203.0.113.9 192.0.2.1 5123 443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 +5123 443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1  443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.999 192.0.2.1 5123 443\r\n",
        "PROXY TCP4 2001:db8::9 2001:db8::1 5123 443\r\n",
        "PROXY TCP6 203.0.113.9 192.0.2.1 5123 443\r\n",
        "PROXY UDP4 203.0.113.9 192.0.2.1 5123 443\r\n",
        "PROXY tcp4 203.0.113.9 192.0.2.1 5123 443\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 5123 443\n",
        "PROXY UNKNOWN\rx\r\n",
        "PROXY UNKNOWN \u{7f}\u{e9}\rx\r\n",
    ] {
        refused(line, Malformed::Form);
    }
    refused(
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)),
        Malformed::TooLong,
    );
}

#[test]
fn version_2_names_the_client_or_nobody() {
    let ends = Some(("203.0.113.9:5123", "192.0.2.1:443"));
    whole(v2(0x21, 0x11, &V4_ENDS), ends);
    whole(
        v2(0x21, 0x21, &v6_ends()),
        Some(("[2001:db8::9]:5123", "[2001:db8::1]:443")),
    );
    // LOCAL, whatever it names; unspecified; UNIX sockets.
    whole(v2(0x20, 0x11, &V4_ENDS), None);
    whole(v2(0x20, 0x00, &[]), None);
    whole(v2(0x21, 0x00, b"any"), None);
    whole(v2(0x21, 0x31, &[0; 216]), None);
    // TLVs after the addresses.
    whole(
        v2(0x21, 0x11, &[&V4_ENDS[..], b"\x01\0\x02h2"].concat()),
        ends,
    );
    whole(
        v2(
            0x21,
            0x11,
            &[&V4_ENDS[..], &[7; MAX_V2_BYTES - 28]].concat(),
        ),
        ends,
    );
}

#[test]
fn version_2_has_one_form() {
    refused(v2(0x11, 0x11, &V4_ENDS), Malformed::Form);
    refused(v2(0x22, 0x11, &V4_ENDS), Malformed::Form);
    refused(v2(0x21, 0x12, &V4_ENDS), Malformed::Form);
    refused(v2(0x21, 0x41, &V4_ENDS), Malformed::Form);
    refused(v2(0x21, 0x11, &V4_ENDS[..11]), Malformed::Form);
    refused(v2(0x21, 0x21, &v6_ends()[..35]), Malformed::Form);
    refused(v2(0x21, 0x11, &[0; MAX_V2_BYTES - 15]), Malformed::TooLong);
}

#[test]
fn what_is_no_header_is_known_by_its_first_bytes() {
    for bytes in [
        &b"G"[..],
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXX",
        b"proxy TCP4",
        b"\r\n\r\n\0\r\nQUIX",
        b"\r\n\r\nG",
    ] {
        assert_eq!(parse(bytes), Err(Malformed::Missing), "{bytes:?}");
    }
    // And nothing at all is no reason to close.
    assert_eq!(parse(b""), Ok(Parsed::More(12)));
}

#[track_caller]
fn encoded(source: &str, destination: &str, v1: &str) {
    let ends = Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    };
    assert_eq!(encode(ProxyProtocol::V1, ends), v1.as_bytes());
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        assert_eq!(read_to_end(&encode(version, ends)), Ok(Some(ends)));
    }
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let v4 = "PROXY TCP4 203.0.113.9 192.0.2.1 5123 443\r\n";
    encoded("203.0.113.9:5123", "192.0.2.1:443", v4);
    let v6 = "PROXY TCP6 2001:db8::9 2001:db8::1 5123 443\r\n";
    encoded("[2001:db8::9]:5123", "[2001:db8::1]:443", v6);
    let mixed = "PROXY TCP6 ::ffff:203.0.113.9 2001:db8::1 0 443\r\n";
    encoded("203.0.113.9:0", "[2001:db8::1]:443", mixed);
}

#[test]
fn version_2_is_written_byte_by_byte_as_specified() {
    let ends = Ends {
        source: "203.0.113.9:5123".parse().unwrap(),
        destination: "192.0.2.1:443".parse().unwrap(),
    };
    assert_eq!(encode(ProxyProtocol::V2, ends), v2(0x21, 0x11, &V4_ENDS));
}
