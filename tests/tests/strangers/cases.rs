//! What each stranger does, hears, and is counted as.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tests::kubernetes::cluster::BoundPod;
use tests::kubernetes::names::{AUDIENCE, DATAPLANE_ACCOUNT};
use tests::kubernetes::push::wire::{Ack, Hello, from_dataplane::Message};
use tests::kubernetes::release::{Release, Scope};
use tests::kubernetes::token::{forged, signed};
use tests::wait;

use super::Scene;

/// A family of the controller's metrics, and its label.
pub(crate) type Family = (&'static str, &'static str);
pub(crate) const REFUSED: Family = ("ws_ingress_controller_push_refusals_total", "reason");
pub(crate) const ENDED: Family = ("ws_ingress_controller_push_streams_ended_total", "cause");

/// The most bytes of a message that are taken, as gRPC's usual limit.
const MAX_MESSAGE_BYTES: u32 = 4 << 20;

/// How a client of HTTP/2 begins (RFC 9113 §3.4), and its first frame, without a setting.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a stranger does.
pub(crate) enum Attempt {
    /// Shows this token, or none.
    Token(Option<String>),
    /// Says this first, and then this, with a token that is good.
    Says(Vec<Message>),
    /// Sends these bytes instead of messages, with a token that is good.
    Bytes(Vec<u8>),
    /// HTTP/2 without TLS.
    PlainText,
    /// Sends these bytes instead of HTTP/2, within TLS.
    Nonsense(Vec<u8>),
    /// TLS 1.2 and no later one.
    Tls12,
    /// Expects a controller of another authority.
    OtherAuthority,
    /// Expects a server of another name.
    OtherName,
}

/// What comes of it: words that it hears, and the family and label under which the controller counts it.
pub(crate) struct Case {
    pub(crate) attempt: Attempt,
    pub(crate) hears: &'static str,
    pub(crate) counted: (Family, &'static str),
}

fn case(attempt: Attempt, hears: &'static str, family: Family, label: &'static str) -> Case {
    Case {
        attempt,
        hears,
        counted: (family, label),
    }
}

pub(crate) fn seconds_from_now(seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_secs();
    json!(now.cast_signed() + seconds)
}

/// The tokens that prove nothing, and what is said of each.
pub(crate) async fn tokens(scene: &Scene, good_token: &str) -> Vec<Case> {
    let (release, cluster) = (&scene.site.release, scene.cluster());
    let namespace = &release.namespace.name;
    let refused =
        |token: String, hears, label| case(Attempt::Token(Some(token)), hears, REFUSED, label);

    let pod = release.dataplane_pod("for-another").await;
    let audience = release.dataplane_token(&pod, "somebody-else").await;
    let api_server = cluster.token(namespace, DATAPLANE_ACCOUNT, &[], None).await;
    let unbound = cluster
        .token(namespace, DATAPLANE_ACCOUNT, &[AUDIENCE], None)
        .await;

    let account = json!({ "metadata": { "name": "neighbour" } });
    let accounts = release.namespace.collection("v1/serviceaccounts");
    cluster.api().create(&accounts, &account).await;
    let pod = release.pod("neighbour", "neighbour").await;
    let bound = BoundPod {
        name: &pod.name,
        uid: &pod.uid,
    };
    let neighbour = cluster
        .token(namespace, "neighbour", &[AUDIENCE], Some(bound))
        .await;

    // Another installation in the same cluster: the same account, in its own namespace.
    let other = Release::install(cluster, Scope::Cluster).await;
    let pod = other.dataplane_pod("dataplane-0").await;
    let other = other.dataplane_token(&pod, AUDIENCE).await;

    let gone = scene.good_token("soon-gone").await;
    let path = release.namespace.path("v1/pods", &gone.0.name);
    let (code, _) = cluster.api().delete(&path).await;
    assert!(code.is_success(), "{code}");
    wait::until("the API server knows that the pod is gone", async || {
        let object = json!({ "spec": { "token": gone.1, "audiences": [AUDIENCE] } });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = cluster.api().create(path, &object).await;
        (review["status"]["authenticated"] != true).then_some(())
    })
    .await;

    let key = cluster.server.token_key();
    let expired = signed(good_token, &key, |claims| {
        claims["exp"] = seconds_from_now(-1);
    });
    let admin = forged(good_token, |claims| claims["sub"] = json!("admin"));
    let forged = forged(good_token, |claims| claims["jti"] = json!("another"));
    vec![
        case(
            Attempt::Token(None),
            "there is no token in the metadata `authorization`",
            REFUSED,
            "token_missing",
        ),
        refused(
            "open-sesame".to_owned(),
            "the metadata `authorization` is not one bearer token",
            "token_malformed",
        ),
        refused(
            audience,
            "the token is for another audience than ws-ingress-controller",
            "token_audience",
        ),
        refused(api_server, "for another audience", "token_audience"),
        refused(
            neighbour,
            "the token is of another ServiceAccount",
            "token_service_account",
        ),
        refused(
            other,
            "the token is of a ServiceAccount in another namespace",
            "token_namespace",
        ),
        refused(
            admin,
            "the token is of no ServiceAccount",
            "token_no_service_account",
        ),
        refused(unbound, "the token names no pod", "token_no_pod"),
        refused(expired, "the token has expired", "token_expired"),
        refused(
            gone.1,
            "the pod or ServiceAccount of the token is gone",
            "token_revoked",
        ),
        refused(
            forged,
            "the API server does not know the token",
            "token_denied",
        ),
    ]
}

/// What goes wrong before or after the token.
pub(crate) fn conversations() -> Vec<Case> {
    let hello = || Message::Hello(Hello::default());
    let too_long = [&[0][..], &(MAX_MESSAGE_BYTES + 1).to_be_bytes()].concat();
    let mut whole = too_long.clone();
    whole.resize(too_long.len() + (1 + MAX_MESSAGE_BYTES as usize), 0);
    let unreadable = "a message cannot be read";
    let garbage = |bytes: &[u8]| {
        let attempt = Attempt::Bytes(bytes.to_vec());
        case(attempt, unreadable, ENDED, "message_unreadable")
    };
    let long = |bytes| {
        let hears = "a message is longer than 4194304 bytes";
        case(Attempt::Bytes(bytes), hears, ENDED, "message_too_long")
    };
    let nonsense = |bytes, hears| case(Attempt::Nonsense(bytes), hears, REFUSED, "http");
    vec![
        case(Attempt::PlainText, "an alert", REFUSED, "not_tls"),
        case(
            Attempt::Tls12,
            "ProtocolVersion",
            REFUSED,
            "incompatible_tls",
        ),
        case(
            Attempt::OtherAuthority,
            "UnknownIssuer",
            REFUSED,
            "certificate_not_accepted",
        ),
        case(
            Attempt::OtherName,
            "certificate not valid for name \"localhost\"",
            REFUSED,
            "certificate_not_accepted",
        ),
        nonsense(vec![0xff; 4096], "the end"),
        nonsense([PREFACE, &[0xff; 4096]].concat(), "GOAWAY"),
        // A message that is no protobuf, a compressed one, a flag that nobody knows, and one that breaks off.
        garbage(b"\0\0\0\0\x05\xff\xff\xff\xff\xff"),
        garbage(b"\x01\0\0\0\x01\0"),
        garbage(b"\x09\0\0\0\x01\0"),
        garbage(b"\0\0\0\0\x05\x0a"),
        // The length alone is enough.
        long(too_long),
        long(whole),
        case(
            Attempt::Says(vec![Message::Ack(Ack::default())]),
            "the first message is no Hello",
            ENDED,
            "not_hello",
        ),
        case(
            Attempt::Says(vec![hello(), hello()]),
            "a message came that answers nothing",
            ENDED,
            "unexpected_message",
        ),
    ]
}
