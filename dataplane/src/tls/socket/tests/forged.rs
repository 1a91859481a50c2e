//! Records made by hand, under the keys of a real handshake.
//!
//! rustls' client makes the connection and reads what the server says. What is sent on it afterwards comes from here, so that a test can say
//! what no well-behaved client would.

use std::sync::Mutex;

use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundPlainMessage};
use rustls::crypto::tls13::{self, OkmBlock};
use rustls::{
    ConnectionTrafficSecrets, ContentType, KeyLog, SupportedCipherSuite, Tls12CipherSuite,
    Tls13CipherSuite,
};

use super::*;

/// The client's first secret after the handshake, as key logs name it.
const SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";

#[derive(Debug, Default)]
struct Secret(Mutex<Vec<u8>>);

impl KeyLog for Secret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == SECRET {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

/// What seals the records of a client.
pub(super) struct Forger {
    keys: Keys,
    sealed: u64,
}

enum Keys {
    /// The secret that keys come from, the next ones too.
    Tls13(&'static Tls13CipherSuite, OkmBlock),
    Tls12(&'static Tls12CipherSuite, [u8; 32], Iv),
}

/// A connection whose client sends what a test makes.
pub(super) struct Forged {
    pub(super) server: TlsSocket<DuplexStream>,
    pub(super) client: Client,
    pub(super) forger: Forger,
}

impl Forged {
    /// A connection of TLS 1.3.
    pub(super) async fn connect() -> Self {
        let log = Arc::new(Secret::default());
        let mut config = ClientConfig::clone(&CONFIGS[0].1);
        config.key_log = log.clone();
        let (server, client) = handshake(&CONFIGS[0].0, config).await;
        let SupportedCipherSuite::Tls13(suite) = client.tls.negotiated_cipher_suite().unwrap()
        else {
            panic!("another version than was asked for");
        };
        let secret = OkmBlock::new(&log.0.lock().unwrap());
        let forger = Forger {
            keys: Keys::Tls13(suite, secret),
            sealed: 0,
        };
        Self {
            server,
            client,
            forger,
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.client.stream.write_all(bytes).await.unwrap();
    }

    /// Reads exactly `length` plain bytes.
    pub(super) async fn hear(&mut self, length: usize) -> Vec<u8> {
        let mut heard = vec![0; length];
        self.server.read_exact(&mut heard).await.unwrap();
        heard
    }

    /// What is written may wait, and only who flushes knows that it went.
    pub(super) async fn answer(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).await.unwrap();
        self.server.flush().await.unwrap();
    }

    /// The error that the server's reader ends with, after `before`.
    pub(super) async fn refusal(&mut self, before: &[u8]) -> io::ErrorKind {
        let mut heard = Vec::new();
        let error = self.server.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(heard, before);
        error.kind()
    }

    /// The alert that the client is ended with.
    pub(super) async fn alert(&mut self) -> Option<rustls::AlertDescription> {
        let mut buffer = vec![0; 20_000];
        loop {
            let read = self.client.stream.read(&mut buffer).await.unwrap();
            let mut rest = &buffer[..read];
            if rest.is_empty() {
                return None;
            }
            while !rest.is_empty() {
                self.client.tls.read_tls(&mut rest).unwrap();
            }
            match self.client.tls.process_new_packets() {
                Ok(_) => {}
                Err(rustls::Error::AlertReceived(alert)) => return Some(alert),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A connection of TLS 1.2: what its client sends next, and nothing of what it would hear.
pub(super) async fn connect_tls12() -> (TlsSocket<DuplexStream>, DuplexStream, Forger) {
    let mut config = ClientConfig::clone(&CONFIGS[1].1);
    config.enable_secret_extraction = true;
    let (mut server, mut client) = handshake(&CONFIGS[1].0, config).await;
    server.flush().await.unwrap();
    let SupportedCipherSuite::Tls12(suite) = client.tls.negotiated_cipher_suite().unwrap() else {
        panic!("another version than was asked for");
    };
    assert!(client.flight().is_empty());
    let (sealed, secrets) = client.tls.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("another cipher than the first");
    };
    let key = key.as_ref().try_into().unwrap();
    let forger = Forger {
        keys: Keys::Tls12(suite, key, iv),
        sealed,
    };
    (server, client.stream, forger)
}

async fn handshake(
    server: &Arc<ServerConfig>,
    client: ClientConfig,
) -> (TlsSocket<DuplexStream>, Client) {
    let (near, far) = duplex(1_000_000);
    let mut client = Client::new(&Arc::new(client), far);
    let accepting = async {
        let mut server = accept(near, server).await.unwrap();
        server.flush().await.unwrap();
        server
    };
    let (server, ()) = join!(accepting, client.handshake(b""));
    (server, client)
}

impl Forger {
    /// One record; what it holds may be longer than is allowed.
    pub(super) fn record(&mut self, kind: ContentType, payload: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: kind,
            version: ProtocolVersion::TLSv1_2,
            payload: payload.into(),
        };
        let record = self.sealing().encrypt(message, self.sealed).unwrap();
        self.sealed += 1;
        record.encode()
    }

    pub(super) fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        self.record(ContentType::ApplicationData, payload)
    }

    /// RFC 8446 §6: level and description.
    pub(super) fn alert(&mut self, level: u8, description: u8) -> Vec<u8> {
        self.record(ContentType::Alert, &[level, description])
    }

    /// RFC 8446 §4.6.3, and the next keys for what follows.
    pub(super) fn key_update(&mut self, requested: bool) -> Vec<u8> {
        let message = [24, 0, 0, 1, u8::from(requested)];
        let record = self.record(ContentType::Handshake, &message);
        let Keys::Tls13(suite, secret) = &mut self.keys else {
            panic!("TLS 1.2 has no such message");
        };
        let length = u16::try_from(secret.as_ref().len()).unwrap();
        let expander = suite.hkdf_provider.expander_for_okm(secret);
        *secret = expander.expand_block(&[&label(length, "traffic upd")]);
        self.sealed = 0;
        record
    }

    /// Made for each record: aws-lc wants to see the numbers of one key from the first on.
    fn sealing(&self) -> Box<dyn MessageEncrypter> {
        match &self.keys {
            // RFC 8446 §7.3
            Keys::Tls13(suite, secret) => {
                let expander = suite.hkdf_provider.expander_for_okm(secret);
                let key = tls13::expand(&*expander, &[&label(32, "key")]);
                let iv = tls13::expand(&*expander, &[&label(12, "iv")]);
                suite.aead_alg.encrypter(key, iv)
            }
            Keys::Tls12(suite, key, iv) => {
                let (fixed, explicit) = iv.as_ref().split_at(4);
                let key = AeadKey::from(*key);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
        }
    }
}

/// `HkdfLabel` without a context (RFC 8446 §7.1).
fn label(length: u16, name: &str) -> Vec<u8> {
    let name = format!("tls13 {name}");
    let mut label = length.to_be_bytes().to_vec();
    label.push(u8::try_from(name.len()).unwrap());
    label.extend_from_slice(name.as_bytes());
    label.push(0);
    label
}
