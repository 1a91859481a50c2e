//! Keys that are pushed and tokens that are shown appear in no log, at any level.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use route_table::{CertificateKey, CertificateResource, PrivateKey, Resources};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tracing_subscriber::fmt::MakeWriter;

use super::super::fake_api::NAMESPACE;
use super::scene::{Scene, backends, wait};
use crate::ca::{Authority, CaNames};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

fn canary() -> Vec<u8> {
    (0..120_u8)
        .map(|index| index.wrapping_mul(37) ^ 0x5a)
        .collect()
}

/// Whether any 16 bytes in a row are there: raw, in hex, as a list, escaped; or all of it in base64.
fn shows(log: &str, key: &[u8]) -> bool {
    let encoded = BASE64_STANDARD.encode(key);
    let parts = key.chunks_exact(16).flat_map(|part| {
        let hex = part.iter().map(|byte| format!("{byte:02x}"));
        let hex = hex.collect::<String>();
        let list = format!("{part:?}");
        let list = list.trim_matches(['[', ']']).to_owned();
        let escaped = part.escape_ascii().to_string();
        let raw = String::from_utf8_lossy(part).into_owned();
        [hex.to_uppercase(), hex, list, escaped, raw]
    });
    let lines = encoded.as_bytes().chunks(64);
    let lines = lines.map(|line| String::from_utf8_lossy(line).into_owned());
    parts.chain(lines).any(|form| log.contains(&form))
}

#[tokio::test]
async fn keys_and_tokens_are_in_no_log() {
    let log = Log::default();
    // With a single one, tracing asks other threads whether its callsites are wanted, and tests there want none.
    let _other = tracing::Dispatch::new(tracing_subscriber::fmt().finish());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let scene = Scene::leader().await;
    let key = CertificateKey {
        namespace: "default".into(),
        secret: "canary".into(),
    };
    let certificate = CertificateResource::Serve {
        chain: Vec::new(),
        key: PrivateKey::from_der(canary()),
    };
    let resources = Resources {
        certificates: [(key, Arc::new(certificate))].into(),
        ..backends([("a", 1)])
    };
    scene.publish(1, resources);
    let names = CaNames {
        namespace: NAMESPACE.into(),
        secret: "ca".into(),
        bundle: "ca-bundle".into(),
    };
    let (mut authority, _tls) = Authority::new(scene.api.client(), names);
    authority.look(Timestamp::now()).await.unwrap();
    authority.look(Timestamp::now()).await.unwrap();
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    let part = dataplane.part().await;
    assert!(
        part.upserts
            .iter()
            .any(|it| it.body.windows(120).any(|window| window == canary()))
    );
    tracing::trace!(?part, "a part");
    dataplane.nack().await;
    dataplane.update().await;
    dataplane.ack().await;
    wait(|| !scene.deliveries.borrow().is_empty()).await;
    scene.resign.cancel();
    dataplane.end().await;
    tracing::trace!(output = ?scene.outputs.borrow(), "the output");

    let text = log.text();
    assert!(text.contains("a dataplane has connected") && text.contains("TRACE"));
    assert!(!shows(&text, &canary()));
    let secret = scene.api.get("/api/v1/namespaces/ws-ingress/secrets/ca");
    let secret = secret.unwrap();
    for name in ["ca.key", "tls.key"] {
        let value = secret["data"][name].as_str().unwrap();
        let pem = BASE64_STANDARD.decode(value).unwrap();
        let der = PrivateKeyDer::from_pem_slice(&pem).unwrap();
        assert!(!shows(&text, der.secret_der()) && !text.contains(&value[..64]));
    }
    let token = scene.token("uid-1");
    let payload = token.split('.').nth(1).unwrap();
    assert!(
        !text.contains(&payload[..32]),
        "{}",
        around(&text, &payload[..32])
    );

    // The search finds what is there.
    for planted in [
        format!("{:?}", canary()),
        format!("{:02x?}", canary()).replace([',', ' '], ""),
        BASE64_STANDARD.encode(canary()),
        canary().escape_ascii().to_string(),
    ] {
        tracing::trace!("{planted}");
        assert!(shows(&log.text(), &canary()), "{planted}");
        log.0.lock().unwrap().clear();
    }
}

fn around<'a>(text: &'a str, found: &str) -> &'a str {
    text.lines()
        .find(|line| line.contains(found))
        .unwrap_or_default()
}
