use super::*;

const CERTIFICATE: &str = include_str!("../../testdata/certificates/chat.crt");
const KEY: &str = include_str!("../../testdata/certificates/chat.key");

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("default".to_owned()),
        ..ObjectMeta::default()
    }
}

fn secret(values: &[(&str, &str)]) -> v1::Secret {
    let values = values
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    v1::Secret {
        metadata: metadata("chat-tls"),
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(values.collect()),
        ..v1::Secret::default()
    }
}

fn good_secret() -> Object {
    secret(&[("tls.crt", CERTIFICATE), ("tls.key", KEY)]).into()
}

fn key() -> ObjectKey {
    good_secret().reference().key()
}

fn route() -> WebSocketRoute {
    let route = serde_json::json!({
        "metadata": { "name": "chat", "namespace": "default" },
        "spec": { "hostnames": ["a.example.com"], "rules": [{ "backendRefs": [{ "name": "chat", "port": 80 }] }] },
    });
    serde_json::from_value(route).unwrap()
}

#[test]
fn equal_objects_and_absent_ones_change_nothing() {
    let mut store = Store::new(UnlistedSecrets::Absent);
    for object in [route().into(), good_secret()] {
        let reference = Object::reference(&object);
        assert!(!store.delete(&reference));
        assert!(store.apply(object.clone()));
        assert!(!store.apply(object));
        assert!(store.delete(&reference));
        assert!(!store.delete(&reference));
    }
}

#[test]
fn what_no_compile_reads_changes_nothing() {
    let mut store = Store::new(UnlistedSecrets::Absent);
    store.apply(route().into());
    let mut written = route();
    written.metadata.resource_version = Some("7".to_owned());
    written.metadata.managed_fields = Some(Vec::new());
    written.status = Some(WebSocketRouteStatus::default());
    assert!(!store.apply(written.clone().into()));
    written.metadata.generation = Some(2);
    assert!(store.apply(written.into()));
}

#[test]
fn a_recorded_claim_is_a_change() {
    let mut store = Store::new(UnlistedSecrets::Absent);
    store.apply(route().into());
    let mut claimed = route();
    claimed.status = Some(WebSocketRouteStatus {
        claims: vec![crds::HostnameClaim {
            hostname: "a.example.com".to_owned(),
            since: jiff::Timestamp::UNIX_EPOCH.into(),
        }],
        ..WebSocketRouteStatus::default()
    });
    assert!(store.apply(claimed.into()));
}

fn service(name: &str, port: i32) -> Service {
    let service = serde_json::json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "ports": [{ "port": port }] },
    });
    serde_json::from_value(service).unwrap()
}

fn slice(service: &str, address: &str) -> EndpointSlice {
    let slice = serde_json::json!({
        "metadata": { "name": "slice", "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address] }],
    });
    serde_json::from_value(slice).unwrap()
}

fn chat() -> ObjectKey {
    ObjectKey {
        namespace: "default".into(),
        name: "chat".into(),
    }
}

#[test]
fn a_service_that_no_route_refers_to_changes_nothing_and_is_there_all_the_same() {
    let mut store = Store::new(UnlistedSecrets::NotYetRead);
    assert!(store.apply(service("other", 80).into()), "nobody said yet");
    store.refer_to_services([chat()].into());
    assert!(!store.apply(service("other", 81).into()));
    assert!(store.apply(service("chat", 80).into()));
    assert!(!store.delete(&Object::from(service("other", 81)).reference()));
    assert!(store.delete(&Object::from(service("chat", 80)).reference()));
    assert!(!store.apply(service("other", 82).into()));
    let other = Object::from(service("other", 82)).reference().key();
    let held = store.snapshot();
    assert_eq!(held.service(&other), Some(&service("other", 82)));
}

#[test]
fn a_slice_matters_while_its_label_names_a_service_that_routes_refer_to() {
    let mut store = Store::new(UnlistedSecrets::NotYetRead);
    store.refer_to_services([chat()].into());
    assert!(!store.apply(slice("other", "10.0.0.1").into()));
    assert!(store.apply(slice("chat", "10.0.0.1").into()), "it joins");
    assert!(store.apply(slice("chat", "10.0.0.2").into()));
    assert!(store.apply(slice("other", "10.0.0.2").into()), "it leaves");
    let reference = Object::from(slice("other", "10.0.0.2")).reference();
    assert!(!store.delete(&reference));
    store.apply(slice("chat", "10.0.0.3").into());
    assert!(store.delete(&reference));
}

#[test]
fn a_snapshot_does_not_follow_the_store() {
    let mut store = Store::new(UnlistedSecrets::Absent);
    store.apply(route().into());
    let before = store.snapshot();
    store.delete(&Object::from(route()).reference());
    assert_eq!(before.routes().count(), 1);
    assert_eq!(store.snapshot().routes().count(), 0);
}

#[test]
fn objects_without_a_namespace_are_in_default() {
    let mut unplaced = route();
    unplaced.metadata.namespace = None;
    assert_eq!(
        Object::from(unplaced).reference().to_string(),
        "WebSocketRoute default/chat"
    );
}

#[test]
fn an_unlisted_secret_is_absent_in_files_and_unread_in_a_cluster() {
    let files = Store::new(UnlistedSecrets::Absent);
    assert_eq!(files.snapshot().secret(&key()), SecretState::Absent);
    let mut cluster = Store::new(UnlistedSecrets::NotYetRead);
    assert_eq!(cluster.snapshot().secret(&key()), SecretState::NotYetRead);
    assert!(cluster.delete(&good_secret().reference()));
    assert_eq!(cluster.snapshot().secret(&key()), SecretState::Absent);
    assert!(cluster.apply(good_secret()));
    assert!(matches!(
        cluster.snapshot().secret(&key()),
        SecretState::Present(_)
    ));
}

#[track_caller]
fn check(secret: v1::Secret, expected: Result<(), &str>) {
    let Object::Secret(parsed) = Object::from(secret) else {
        panic!("a Secret became something else");
    };
    let found = parsed
        .certificate
        .as_ref()
        .map(|_| ())
        .map_err(ToString::to_string);
    assert_eq!(found, expected.map_err(ToOwned::to_owned));
}

#[test]
fn a_secret_is_parsed_once_and_says_what_is_wrong() {
    check(
        secret(&[("tls.crt", CERTIFICATE), ("tls.key", KEY)]),
        Ok(()),
    );
    check(secret(&[("tls.key", KEY)]), Err("has no tls.crt"));
    check(secret(&[("tls.crt", CERTIFICATE)]), Err("has no tls.key"));
    check(
        secret(&[("tls.crt", CERTIFICATE), ("tls.key", "")]),
        Err(
            "cannot be used: tls.key holds no usable PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        ),
    );
    let mut opaque = secret(&[("tls.crt", CERTIFICATE), ("tls.key", KEY)]);
    opaque.type_ = Some("Opaque".to_owned());
    check(opaque, Err("is not of type kubernetes.io/tls"));
}

#[test]
fn string_data_wins_over_data() {
    let mut both = secret(&[("tls.crt", CERTIFICATE), ("tls.key", KEY)]);
    let old = k8s_openapi::ByteString(b"old".to_vec());
    both.data = Some([("tls.key".to_owned(), old)].into());
    check(both, Ok(()));
}

#[test]
fn debug_shows_no_key() {
    let mut store = Store::new(UnlistedSecrets::Absent);
    store.apply(good_secret());
    let printed = format!("{store:?} {:?}", good_secret());
    // One line in the middle of the PEM, and the same bytes as Debug prints them.
    let line = KEY.lines().nth(1).unwrap();
    assert!(!printed.contains(line));
    assert!(!printed.contains("PRIVATE"));
    assert!(!printed.contains(", 48, 129, "));
    assert!(printed.contains("chat-tls"));
}
