use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::encode;
use crate::samples::{self, any_backend, any_certificate, any_external, any_route};

/// What a route comes to after a change of its message.
#[track_caller]
fn refuse_route(change: impl Fn(&mut wire::Route), field: &str, problem: FieldProblem) {
    let mut sent = message::<wire::Route>(&encode::route(&samples::route()).body).unwrap();
    change(&mut sent);
    let expected = Undecodable {
        field: field.into(),
        problem,
    };
    assert_eq!(route(&sent), Err(expected));
}

#[track_caller]
fn refuse_rule(change: impl Fn(&mut wire::Rule), field: &str, problem: FieldProblem) {
    refuse_route(|route| change(&mut route.rules[0]), field, problem);
}

#[track_caller]
fn refuse_timeout(connect: Option<(u64, u32)>, problem: FieldProblem) {
    let connect = connect.map(|(seconds, nanos)| wire::Duration { seconds, nanos });
    refuse_rule(
        |rule| rule.timeouts.as_mut().unwrap().connect = connect,
        "rules[0].timeouts.connect",
        problem,
    );
}

fn endpoint(address: &[u8], port: u32, state: i32) -> wire::Endpoint {
    wire::Endpoint {
        address: Bytes::copy_from_slice(address),
        port,
        state,
    }
}

#[track_caller]
fn refuse_endpoints(endpoints: &[wire::Endpoint], field: &str, problem: FieldProblem) {
    let sent = wire::Backend {
        endpoints: endpoints.to_vec(),
    };
    let expected = Undecodable {
        field: field.into(),
        problem,
    };
    assert_eq!(backend(&sent), Err(expected));
}

#[test]
fn hostnames_are_checked() {
    refuse_route(
        |route| route.hostnames[1].pattern = "a_b.example.com".into(),
        "hostnames[1].pattern",
        FieldProblem::Hostname(HostnameError::Character),
    );
    refuse_route(
        |route| route.hostnames[0].tls = None,
        "hostnames[0].tls",
        FieldProblem::Unknown,
    );
    let certificate = wire::CertificateRef {
        namespace: "default".into(),
        secret: "../etc".into(),
    };
    let terminate = wire::Terminate {
        certificates: vec![certificate],
        on_plain: wire::OnPlain::Redirect.into(),
    };
    refuse_route(
        |route| {
            let terminate = wire::route_hostname::Tls::Terminate(terminate.clone());
            route.hostnames[1].tls = Some(terminate);
        },
        "hostnames[1].certificates[0].secret",
        FieldProblem::Name,
    );
    refuse_route(
        |route| route.hostnames = vec![route.hostnames[0].clone(); MAX_ENTRIES + 1],
        "hostnames",
        FieldProblem::TooMany,
    );
}

/// The route of the samples after a change of what its first hostname does without TLS.
fn with_on_plain(on_plain: i32) -> Result<Route> {
    let mut sent = message::<wire::Route>(&encode::route(&samples::route()).body).unwrap();
    let Some(wire::route_hostname::Tls::Terminate(terminate)) = &mut sent.hostnames[0].tls else {
        panic!("the first hostname is served over TLS");
    };
    terminate.on_plain = on_plain;
    route(&sent)
}

#[test]
fn a_controller_that_says_nothing_of_plain_text_has_nothing_served_there() {
    let older = with_on_plain(0).unwrap();
    let HostTls::Terminate { plain, .. } = older.hostnames[0].tls else {
        panic!("it is served over TLS");
    };
    assert_eq!(plain, OnPlain::Refuse);
    let newer = with_on_plain(99).unwrap_err();
    assert_eq!(newer.field, "hostnames[0].on_plain");
}

#[test]
fn rules_are_checked() {
    refuse_rule(
        |rule| rule.name = "A rule".into(),
        "rules[0].name",
        FieldProblem::Name,
    );
    refuse_rule(
        |rule| rule.matches[1].path = None,
        "rules[0].matches[1].path",
        FieldProblem::Unknown,
    );
    refuse_rule(
        |rule| rule.matches[0].path = Some(wire::route_match::Path::Prefix("chat".into())),
        "rules[0].matches[0].path",
        FieldProblem::Path(PathError::NotAbsolute),
    );
    refuse_rule(
        |rule| rule.matches = vec![rule.matches[0].clone(); MAX_ENTRIES + 1],
        "rules[0].matches",
        FieldProblem::TooMany,
    );
    for unknown in [0, 3, -1] {
        refuse_rule(
            |rule| rule.non_upgrade = unknown,
            "rules[0].non_upgrade",
            FieldProblem::Unknown,
        );
    }
    refuse_rule(
        |rule| rule.timeouts = None,
        "rules[0].timeouts",
        FieldProblem::Unknown,
    );
}

#[test]
fn backend_references_are_checked() {
    for port in [0, 65_536] {
        refuse_rule(
            |rule| rule.backends[0].port = port,
            "rules[0].backends[0].port",
            FieldProblem::Port,
        );
    }
    refuse_rule(
        |rule| rule.backends[0].proxy_protocol = 3,
        "rules[0].backends[0].proxy_protocol",
        FieldProblem::Unknown,
    );
    refuse_rule(
        |rule| rule.backends[0].weight = MAX_WEIGHT + 1,
        "rules[0].backends[0].weight",
        FieldProblem::Weight,
    );
    refuse_rule(
        |rule| rule.backends[0].namespace = String::new(),
        "rules[0].backends[0].namespace",
        FieldProblem::Name,
    );
    refuse_rule(
        |rule| rule.backends[0].service = "a/b".into(),
        "rules[0].backends[0].service",
        FieldProblem::Name,
    );
}

#[test]
fn durations_are_checked() {
    refuse_timeout(None, FieldProblem::Unknown);
    refuse_timeout(Some((1, 1_000_000_000)), FieldProblem::Duration);
    refuse_timeout(Some((u64::MAX, u32::MAX)), FieldProblem::Duration);
    refuse_timeout(Some((MAX_DURATION.as_secs(), 1)), FieldProblem::Duration);
}

#[test]
fn endpoints_are_checked() {
    let good = endpoint(&[10, 0, 0, 2], 80, 1);
    refuse_endpoints(
        &[good.clone(), endpoint(&[10, 0, 0], 80, 1)],
        "endpoints[1].address",
        FieldProblem::Address,
    );
    for port in [0, 65_536] {
        refuse_endpoints(
            &[endpoint(&[10, 0, 0, 2], port, 1)],
            "endpoints[0].port",
            FieldProblem::Port,
        );
    }
    for state in [0, 3, -1] {
        refuse_endpoints(
            &[endpoint(&[10, 0, 0, 2], 80, state)],
            "endpoints[0].state",
            FieldProblem::Unknown,
        );
    }
    for not_above in [good.clone(), endpoint(&[10, 0, 0, 1], 80, 1)] {
        refuse_endpoints(
            &[good.clone(), not_above],
            "endpoints[1].address",
            FieldProblem::Order,
        );
    }
}

#[test]
fn certificate_of_neither_kind_is_refused() {
    let decoded = certificate(wire::Certificate { certificate: None });
    assert_eq!(
        decoded.unwrap_err().to_string(),
        "certificate is missing, or has a value that this dataplane does not know"
    );
    let chain = vec![Bytes::new(); MAX_ENTRIES + 1];
    let serve = wire::Serve {
        chain,
        key: Bytes::new(),
    };
    let certificate_message = wire::Certificate {
        certificate: Some(wire::certificate::Certificate::Serve(serve)),
    };
    let decoded = certificate(certificate_message);
    assert_eq!(decoded.unwrap_err().field, "certificate.chain");
}

#[test]
fn unknown_fields_are_skipped() {
    // Field 1000 as a varint, as a later version may add it.
    let mut body = encode::route(&samples::route()).body.to_vec();
    body.extend([0xc0, 0x3e, 0x01]);
    let decoded = route(&message(&body.into()).unwrap());
    assert_eq!(decoded, Ok(samples::route()));
}

#[test]
fn broken_encoding_is_refused() {
    let body = Bytes::from_static(b"\xff\xff");
    let error = message::<wire::Route>(&body).unwrap_err();
    assert_eq!(
        error.to_string(),
        "body is not an encoded resource of its kind"
    );
}

#[test]
fn an_external_backend_with_a_broken_field_is_refused() {
    let sent = wire::External {
        host: "a.example.com".into(),
        port: 443,
        tls: Some(wire::ExternalTls {
            authorities: Some(wire::external_tls::Authorities::System(
                wire::SystemAuthorities {},
            )),
        }),
        denied: vec![wire::AddressRange {
            address: vec![10, 0, 0, 0].into(),
            prefix_length: 8,
        }],
    };
    assert!(external(&sent).is_ok());
    let check = |change: &dyn Fn(&mut wire::External), field: &str, problem| {
        let mut sent = sent.clone();
        change(&mut sent);
        let expected = Undecodable {
            field: field.into(),
            problem,
        };
        assert_eq!(external(&sent), Err(expected));
    };
    let not_a_name = FieldProblem::Hostname(HostnameError::IpAddress);
    check(&|sent| sent.host = "10.0.0.1".into(), "host", not_a_name);
    check(&|sent| sent.port = 0, "port", FieldProblem::Port);
    // A later kind of authorities: whoever does not know it must not trust others instead.
    let unknown = FieldProblem::Unknown;
    let no_authorities = |sent: &mut wire::External| {
        sent.tls = Some(wire::ExternalTls { authorities: None });
    };
    check(&no_authorities, "tls.authorities", unknown);
    let too_long = |sent: &mut wire::External| sent.denied[0].prefix_length = 33;
    check(&too_long, "denied[0].prefix_length", FieldProblem::Prefix);
    let short = |sent: &mut wire::External| sent.denied[0].address = vec![10].into();
    check(&short, "denied[0].address", FieldProblem::Address);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_alike(
        sent in any_route(), endpoints in any_backend(), served in any_certificate(),
        name in any_external()
    ) {
        let decoded = route(&message(&encode::route(&sent).body).unwrap());
        prop_assert_eq!(decoded, Ok(sent));
        let decoded = backend(&message(&encode::backend(&endpoints).body).unwrap());
        prop_assert_eq!(decoded, Ok(endpoints));
        let decoded = certificate(message(&encode::certificate(&served).body).unwrap());
        prop_assert_eq!(decoded, Ok(served));
        let decoded = external(&message(&encode::external(&name).body).unwrap());
        prop_assert_eq!(decoded, Ok(name));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        let _ = message(&body).map(|body| route(&body));
        let _ = message(&body).map(|body| backend(&body));
        let _ = message(&body).map(|body| external(&body));
        let _ = message(&body).map(certificate);
    }

    #[test]
    fn a_changed_byte_is_decoded_or_refused(
        sent in any_route(), at in any::<proptest::sample::Index>(), flip in 1_u8..
    ) {
        let mut body = encode::route(&sent).body.to_vec();
        prop_assume!(!body.is_empty());
        let at = at.index(body.len());
        body[at] ^= flip;
        let _ = message(&body.into()).map(|body| route(&body));
    }
}
