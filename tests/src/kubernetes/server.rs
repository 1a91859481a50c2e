//! etcd and kube-apiserver as child processes on ports of 127.0.0.1, in a folder of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::Method;
use rcgen::{KeyPair, SigningKey as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::audit;
use super::credentials::{Access, ClusterAuthority, Identity};
use super::request::Api;
use crate::metrics;
use crate::process::{Process, guarded};
use crate::wait;

/// Ready in 3 s on an idle machine; a loaded one gets time.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Ports are taken from here, below those that the kernel gives to port 0 and to clients: a server that is stopped for a
/// minute must find its port free.
const PORTS: Range<u16> = 20_000..32_000;

/// Where the API server says that it is. It tells nobody here, but refuses to tell a loopback address, and without a
/// default route it finds no other (an address for documentation, RFC 5737).
const ADVERTISED: &str = "192.0.2.1";

/// A running API server with its etcd.
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    authority: ClusterAuthority,
    /// Signs the tokens of accounts.
    signing: KeyPair,
    etcd_client: SocketAddr,
    address: SocketAddr,
    /// Parts of the audit log from the API server's starts: it refuses everything until it has read its roles.
    starts: StdMutex<Vec<Range<usize>>>,
    /// None while it is stopped. Dropped before its etcd, which it would miss loudly.
    api: Mutex<Option<Process>>,
    _etcd: Process,
}

impl Server {
    /// Starts both and returns once the API server is ready. `programs` holds them, `folder` takes their files.
    pub async fn start(programs: &Path, folder: &Path) -> Self {
        let authority = ClusterAuthority::new();
        let server = authority.server();
        let signing = KeyPair::generate().expect("a key");
        let files = [
            ("ca.crt", authority.root_pem()),
            ("server.crt", server.certificate),
            ("server.key", server.key),
            ("tokens.key", signing.serialize_pem()),
            ("tokens.pub", signing.public_key_pem()),
            ("audit-policy.yaml", audit::POLICY.to_owned()),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("write a file");
        }

        let etcd_client = free_port();
        let etcd = start_etcd(programs, folder, etcd_client).await;
        let server = Self {
            programs: programs.to_path_buf(),
            folder: folder.to_path_buf(),
            authority,
            signing,
            etcd_client,
            address: free_port(),
            starts: StdMutex::default(),
            api: Mutex::new(None),
            _etcd: etcd,
        };
        server.start_api().await;
        server
    }

    /// Ends the API server at once, as if its machine had gone; etcd and all data stay.
    pub async fn stop_api(&self) {
        if let Some(mut api) = self.api.lock().await.take() {
            api.signal(Signal::KILL);
            api.exit(wait::LIMIT).await;
        }
    }

    /// Starts the API server on its port and data, and waits until it is ready.
    pub async fn start_api(&self) {
        let mut command = guarded(&self.programs.join("kube-apiserver"));
        let file = |name: &str| self.folder.join(name).display().to_string();
        let flags = [
            ("etcd-servers", format!("http://{}", self.etcd_client)),
            ("cert-dir", file("certificates")),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("client-ca-file", file("ca.crt")),
            ("bind-address", self.address.ip().to_string()),
            ("secure-port", self.address.port().to_string()),
            ("advertise-address", ADVERTISED.to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("authorization-mode", "RBAC".to_owned()),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".to_owned(),
            ),
            ("service-account-key-file", file("tokens.pub")),
            ("service-account-signing-key-file", file("tokens.key")),
            ("service-cluster-ip-range", "10.0.0.0/16".to_owned()),
            ("audit-policy-file", file("audit-policy.yaml")),
            ("audit-log-path", self.audit_file().display().to_string()),
            // Nobody makes default ServiceAccounts, and this plugin refuses pods without one.
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ];
        for (name, value) in flags {
            command.arg(format!("--{name}={value}"));
        }
        let before = self.audit().len();
        let mut api = self.api.lock().await;
        let api = api.insert(Process::spawn("kube-apiserver", command));
        let client = Api::new(admin(&self.authority, self.address));
        wait::until_limit("the API server is ready", START_LIMIT, async || {
            assert!(api.runs(), "kube-apiserver ended");
            let (status, _) = client.try_send(Method::GET, "/readyz", None).await.ok()?;
            status.is_success().then_some(())
        })
        .await;
        let start = before..self.audit().len();
        self.starts().push(start);
    }

    fn starts(&self) -> MutexGuard<'_, Vec<Range<usize>>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token of these claims, as the API server itself would sign it (RFC 7515, RFC 7518 §3.4).
    pub(super) fn signed_token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let parts = [header.to_string(), claims.to_string()].map(|part| BASE64.encode(part));
        let text = parts.join(".");
        let signature = self.signing.sign(text.as_bytes()).expect("a signature");
        format!("{text}.{}", BASE64.encode(fixed(&signature)))
    }

    fn audit_file(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    fn audit(&self) -> Vec<u8> {
        // Not there before the first start.
        fs::read(self.audit_file()).unwrap_or_default()
    }

    /// What accounts asked for while it was ready, and what they were told: see [`audit`].
    pub(super) fn audit_log(&self) -> String {
        let mut log = self.audit();
        for start in self.starts().iter().rev() {
            log.drain(start.clone());
        }
        String::from_utf8_lossy(&log).into_owned()
    }

    /// How to reach it as admin.
    pub fn admin(&self) -> Access {
        admin(&self.authority, self.address)
    }

    /// How to reach it as this user, by a client certificate.
    pub fn user(&self, user: &str, groups: &[&str]) -> Access {
        self.access(Identity::Certificate(self.authority.client(user, groups)))
    }

    /// The key that it signs the tokens of `ServiceAccount`s with.
    pub fn token_key(&self) -> KeyPair {
        let pem = fs::read_to_string(self.folder.join("tokens.key")).expect("its key");
        KeyPair::from_pem(&pem).expect("a key in PEM")
    }

    pub fn access(&self, identity: Identity) -> Access {
        Access {
            server: self.address,
            root_pem: self.authority.root_pem(),
            identity,
        }
    }
}

/// A signature of P-256, which is a SEQUENCE of two INTEGERs in DER, as two numbers of 32 bytes.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut number = || {
        let (head, tail) = rest.split_at(2);
        let (bytes, after) = tail.split_at(usize::from(head[1]));
        rest = after;
        let digits = &bytes[bytes.len().saturating_sub(32)..];
        [vec![0; 32 - digits.len()], digits.to_vec()].concat()
    };
    [number(), number()].concat()
}

fn admin(authority: &ClusterAuthority, server: SocketAddr) -> Access {
    Access {
        server,
        root_pem: authority.root_pem(),
        identity: Identity::Certificate(authority.client("admin", &["system:masters"])),
    }
}

async fn start_etcd(programs: &Path, folder: &Path, client: SocketAddr) -> Process {
    let peer = free_port();
    let mut command = guarded(&programs.join("etcd"));
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls=http://{client}"))
        .arg(format!("--advertise-client-urls=http://{client}"))
        .arg(format!("--listen-peer-urls=http://{peer}"))
        // Its data ends with the test; waiting for the disk would only slow every write.
        .arg("--unsafe-no-fsync=true")
        .arg("--log-level=warn");
    let mut etcd = Process::spawn("etcd", command);
    wait::until_limit("etcd is ready", START_LIMIT, async || {
        assert!(etcd.runs(), "etcd ended");
        (metrics::get(client, "/health").await?.0 == 200).then_some(())
    })
    .await;
    etcd
}

/// A port that nobody listens on. Not the kernel's choice: see [`PORTS`].
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin far from each other.
    let width = u32::from(PORTS.end - PORTS.start);
    let own = std::process::id().wrapping_mul(97) % width;
    for _ in PORTS {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((own + step) % width).expect("below the width");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + offset));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}")
}
