//! Who is turned away, each with its own answer and metric.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{Timestamp, ToSpan};
use push::wire::{HeldDigest, Hello, from_dataplane};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code::{self, PermissionDenied, Unauthenticated};

use super::super::Limits;
use super::super::fake_api::{ACCOUNT, NAMESPACE, claims, token};
use super::scene::{Dataplane, Scene, limits};
use crate::ca::Material;

pub(super) fn refused(reason: &str) -> String {
    format!(r#"push_refusals_total{{reason="{reason}"}} 1"#)
}

fn ended(cause: &str) -> String {
    format!(r#"push_streams_ended_total{{cause="{cause}"}} 1"#)
}

async fn tls(
    scene: &Scene,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let bundle = scene.ca.bundle_pem();
    roots.add_parsable_certificates(
        CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap),
    );
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(scene.address).await?;
    let name = ServerName::try_from(push::SERVER_NAME).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

#[tokio::test]
async fn who_cannot_prove_a_dataplane_pod_is_told_why() {
    let scene = Scene::leader().await;
    let changed = |name: &str, value: Value| {
        let mut claims = claims("uid-1");
        claims[name] = value;
        let token = token(&claims);
        // Even if the API server would accept it.
        scene.api.accept(&token, "uid-1");
        Some(token)
    };
    let account = |namespace: &str, name: &str| {
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        changed("sub", json!(subject))
    };
    let past = (Timestamp::now() - 1.second()).as_second();
    let revoked = token(&claims("uid-2"));
    let gone = json!({ "error": "service account token has been invalidated" });
    scene.api.answer(&revoked, gone);
    let cases = [
        (None, "token_missing", Unauthenticated),
        (Some("x".into()), "token_malformed", Unauthenticated),
        (
            changed("aud", json!(["other"])),
            "token_audience",
            Unauthenticated,
        ),
        (
            changed("exp", json!(past)),
            "token_expired",
            Unauthenticated,
        ),
        (
            changed("sub", json!("admin")),
            "token_no_service_account",
            PermissionDenied,
        ),
        (
            account("default", ACCOUNT),
            "token_namespace",
            PermissionDenied,
        ),
        (
            account(NAMESPACE, "default"),
            "token_service_account",
            PermissionDenied,
        ),
        (
            changed("kubernetes.io", json!({})),
            "token_no_pod",
            PermissionDenied,
        ),
        (
            Some(token(&claims("forged"))),
            "token_denied",
            Unauthenticated,
        ),
        (Some(revoked), "token_revoked", Unauthenticated),
    ];
    for (token, reason, code) in cases {
        let call = Dataplane::call(scene.channel().await, token.as_deref()).await;
        let status = call.err().unwrap();
        assert_eq!(status.code(), code, "{reason}: {status}");
        scene.metric(&refused(reason)).await;
    }
    scene.metric("dataplanes_connected 0").await;
}

#[tokio::test]
async fn a_follower_says_so_before_it_looks_at_a_token() {
    let scene = Scene::with(limits()).await;
    let call = Dataplane::call(scene.channel().await, None).await;
    let status = call.err().unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "not the leader")
    );
    scene.metric(&refused("not_leader")).await;
    assert_eq!(scene.api.reviews(), 0);
}

#[tokio::test]
async fn without_tls_13_there_is_no_conversation() {
    let scene = Scene::leader().await;
    let mut plain = TcpStream::connect(scene.address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    // An alert, or nothing; then the end.
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(answer.len() < 16, "{answer:?}");
    scene.metric(&refused("not_tls")).await;

    let error = tls(&scene, &version::TLS12).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    scene.metric(&refused("incompatible_tls")).await;
    tls(&scene, &version::TLS13).await.unwrap();
}

#[tokio::test]
async fn a_dataplane_leaves_a_server_of_another_ca_or_name() {
    let scene = Scene::leader().await;
    let other = Material::renew(None, Timestamp::now()).unwrap().unwrap();
    scene
        .try_channel(&other, push::SERVER_NAME)
        .await
        .unwrap_err();
    scene.metric(&refused("certificate_not_accepted")).await;
    scene.try_channel(&scene.ca, "localhost").await.unwrap_err();
    let twice = r#"push_refusals_total{reason="certificate_not_accepted"} 2"#;
    scene.metric(twice).await;
}

#[tokio::test]
async fn without_a_certificate_nobody_is_served_yet() {
    let scene = Scene::leader().await;
    scene.tls.send_replace(None);
    scene
        .try_channel(&scene.ca, push::SERVER_NAME)
        .await
        .unwrap_err();
    scene.metric(&refused("no_certificate")).await;
}

#[tokio::test]
async fn nonsense_behind_tls_ends_the_connection() {
    let scene = Scene::leader().await;
    let mut tls = tls(&scene, &version::TLS13).await.unwrap();
    tls.write_all(&[0xff; 4096]).await.unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    scene.metric(&refused("http")).await;
}

/// A call with a token that is accepted, and a body of these bytes.
async fn call_with_body(scene: &Scene, body: Vec<u8>) {
    let tls = tls(scene, &version::TLS13).await.unwrap();
    let io = TokioIo::new(tls);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let token = scene.token("uid-1");
    let request = http::Request::post(format!(
        "https://{}/{}/Connect",
        push::SERVER_NAME,
        push::PROTOCOL
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("authorization", format!("Bearer {token}"))
    .body(Full::new(Bytes::from(body)))
    .unwrap();
    let exchange = async {
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        // Kept until the server is done with it.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = exchange => {}
        _ = connection => {}
    }
}

#[tokio::test]
async fn frames_of_garbage_end_the_stream() {
    // A message of five bytes that is no protobuf; a compressed one; one that breaks off.
    let garbage = [
        (
            b"\0\0\0\0\x05\xff\xff\xff\xff\xff".to_vec(),
            "message_unreadable",
        ),
        (b"\x01\0\0\0\x01\0".to_vec(), "message_unreadable"),
        (b"\x09\0\0\0\x01\0".to_vec(), "message_unreadable"),
        (b"\0\0\0\0\x05\x0a".to_vec(), "message_unreadable"),
        // The length alone is enough.
        (b"\0\xff\xff\xff\xff".to_vec(), "message_too_long"),
    ];
    for (body, cause) in garbage {
        let scene = Scene::leader().await;
        call_with_body(&scene, body).await;
        scene.metric(&ended(cause)).await;
        scene.metric("dataplanes_connected 0").await;
    }
}

#[tokio::test]
async fn messages_out_of_order_end_the_stream() {
    let hello = || from_dataplane::Message::Hello(Hello::default());
    let twice = HeldDigest {
        key: "route/a/b".into(),
        digest: vec![0; 32].into(),
    };
    let bad = Hello {
        held: vec![twice.clone(), twice],
        ..Hello::default()
    };
    let ack = push::ack(&push::Held::default(), &[]);
    let cases = [
        (vec![from_dataplane::Message::Ack(ack)], "not_hello"),
        (vec![from_dataplane::Message::Hello(bad)], "bad_hello"),
        (vec![hello(), hello()], "unexpected_message"),
    ];
    for (messages, cause) in cases {
        let scene = Scene::leader().await;
        let token = scene.token("uid-1");
        let mut dataplane = Dataplane::call(scene.channel().await, Some(&token))
            .await
            .unwrap();
        for message in messages {
            dataplane.send(message).await;
        }
        let status = dataplane.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{cause}: {status}");
        scene.metric(&ended(cause)).await;
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_stream() {
    let scene = Scene::leader().await;
    let mut body = vec![0];
    let length = u32::try_from(push::MAX_MESSAGE_BYTES + 1).unwrap();
    body.extend(length.to_be_bytes());
    body.resize(push::MAX_MESSAGE_BYTES + 6, 0);
    call_with_body(&scene, body).await;
    scene.metric(&ended("message_too_long")).await;
}

#[tokio::test]
async fn strangers_are_not_waited_for() {
    let short = Duration::from_millis(50);
    let scene = Scene::with(Limits {
        arrival: short,
        ..limits()
    });
    let scene = scene.await.lead().await;
    let _silent = TcpStream::connect(scene.address).await.unwrap();
    scene.metric(&refused("handshake_timeout")).await;

    let scene = Scene::with(Limits {
        // Real handshakes have to be through by then.
        arrival: Duration::from_secs(4),
        hello: short,
        ..limits()
    });
    let scene = scene.await.lead().await;
    let _idle = tls(&scene, &version::TLS13).await.unwrap();
    scene.metric(&refused("no_call")).await;
    let token = scene.token("uid-1");
    let mut mute = Dataplane::call(scene.channel().await, Some(&token))
        .await
        .unwrap();
    assert_eq!(mute.end().await.code(), Code::DeadlineExceeded);
    scene.metric(&ended("no_hello")).await;
}

#[tokio::test]
async fn one_connection_carries_one_stream() {
    let scene = Scene::leader().await;
    let channel = scene.channel().await;
    let first = Dataplane::call(channel.clone(), Some(&scene.token("uid-1")))
        .await
        .unwrap();
    let token = scene.token("uid-2");
    let second = Dataplane::call(channel, Some(&token));
    let waited = timeout(Duration::from_millis(100), second).await;
    // HTTP/2 holds it back until the first ends, and then the connection ends too.
    assert!(waited.is_err());
    drop(first);
    scene.metric("dataplanes_connected 0").await;
}
