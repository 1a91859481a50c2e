//! Handshakes over loopback, with rustls' own client: what a ticket is good for, and what it never gets past.

use std::collections::BTreeMap;

use route_table::{
    CertificateKey, CertificateResource, HostPattern, HostTls, OnPlain, PrivateKey, Resources,
    Route, RouteHostname, RouteKey,
};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls12Resumption, Tls13ClientSessionValue,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, NamedGroup, RootCertStore,
    SupportedProtocolVersion, version,
};
use tokio::io::AsyncReadExt as _;
use tokio::join;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::Limits;
use crate::metrics::Metrics;

const NAME: &str = "chat.example.com";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// A certificate and its key, for every name that the tests use.
fn issue() -> Arc<CertificateResource> {
    let names = ["example.com", "*.example.com", "*.chat.example.com"];
    let issued = rcgen::generate_simple_self_signed(names.map(str::to_owned)).unwrap();
    Arc::new(CertificateResource::Serve {
        chain: vec![issued.cert.der().clone()],
        key: PrivateKey::from_der(issued.signing_key.serialize_der()),
    })
}

fn leaf(certificate: &CertificateResource) -> CertificateDer<'static> {
    let CertificateResource::Serve { chain, .. } = certificate else {
        panic!("nothing is held here");
    };
    chain[0].clone()
}

/// Hosts by route, and Secrets, as a test changes them between two handshakes.
#[derive(Clone, Default)]
struct World {
    resources: Resources,
}

impl World {
    fn secret(mut self, namespace: &str, certificate: &Arc<CertificateResource>) -> Self {
        let certificates = &mut self.resources.certificates;
        certificates.insert(secret(namespace), certificate.clone());
        self
    }

    /// A route of `namespace` for one hostname, served with the Secrets of these namespaces.
    fn route(mut self, namespace: &str, hostname: &str, secrets: &[&str]) -> Self {
        let certificates = secrets.iter().copied().map(secret).collect();
        let route = Route {
            created: None,
            hostnames: vec![RouteHostname {
                pattern: HostPattern::parse(hostname).unwrap(),
                tls: HostTls::Terminate {
                    certificates,
                    plain: OnPlain::default(),
                },
            }],
            rules: Vec::new(),
            closed: false,
        };
        let key = RouteKey {
            namespace: namespace.into(),
            name: hostname.into(),
        };
        self.resources.routes.insert(key, Arc::new(route));
        self
    }

    fn without_routes(mut self) -> Self {
        self.resources.routes = BTreeMap::new();
        self
    }

    fn without_secrets(mut self) -> Self {
        self.resources.certificates = BTreeMap::new();
        self
    }

    fn after(&self, previous: &RouteTable) -> Arc<RouteTable> {
        Arc::new(RouteTable::build(&self.resources, previous).0)
    }
}

fn secret(namespace: &str) -> CertificateKey {
    CertificateKey {
        namespace: namespace.into(),
        secret: "tls".into(),
    }
}

/// Keeps what it was given for every name under one, so that a ticket is offered to another host than it came from.
#[derive(Debug)]
struct OneForAll(ClientSessionMemoryCache);

impl OneForAll {
    fn any() -> ServerName<'static> {
        ServerName::try_from("any.example.com").unwrap()
    }
}

impl ClientSessionStore for OneForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::any(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::any())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::any())
    }
}

/// A client that trusts these certificates and offers whatever ticket it has.
fn client(
    version: &'static SupportedProtocolVersion,
    trusted: &[&Arc<CertificateResource>],
    tls12: Tls12Resumption,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(leaf(certificate)).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[version]).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    let store = Arc::new(OneForAll(ClientSessionMemoryCache::new(8)));
    config.resumption = Resumption::store(store).tls12_resumption(tls12);
    Arc::new(config)
}

/// How one handshake went, and how many tickets came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Met {
    resumed: bool,
    tls13_tickets: u32,
}

/// One connection to `name` that says something both ways.
async fn meet(
    tls: &Tls,
    table: &Arc<RouteTable>,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> io::Result<Met> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = SendLimit::new(tcp, std::time::Duration::ZERO);
        let slots = Slots::new(&Limits::default(), Arc::new(Metrics::new()));
        let stopping = CancellationToken::new();
        let (mut stream, served_as) = tls
            .accept(stream, || table.clone(), &slots, &stopping)
            .await?;
        // An open socket keeps nothing of it.
        assert_eq!(Arc::strong_count(table), 1);
        assert_eq!(served_as.as_str(), name);
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
        stream.shutdown().await.unwrap();
        Ok::<_, TlsError>(())
    };
    let asking = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let server = ServerName::try_from(name).unwrap();
        let mut stream = TlsConnector::from(client.clone())
            .connect(server, tcp)
            .await?;
        stream.write_all(b"said").await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        assert_eq!(heard, b"said");
        let session = stream.get_ref().1;
        Ok(Met {
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            tls13_tickets: session.tls13_tickets_received(),
        })
    };
    let (served, met) = join!(serving, asking);
    assert_eq!(served.is_ok(), met.is_ok(), "{served:?}, {met:?}");
    met
}

/// Whether the ticket of a first handshake under `before` resumes after the change to `after`.
async fn resumes(
    version: &'static SupportedProtocolVersion,
    tls12: Tls12Resumption,
    (before, after): (&World, &World),
    trusted: &[&Arc<CertificateResource>],
) -> bool {
    let tls = Tls::new().unwrap();
    let client = client(version, trusted, tls12);
    let first = before.after(&RouteTable::empty());
    let met = meet(&tls, &first, &client, NAME).await.unwrap();
    assert!(!met.resumed);
    let second = after.after(&first);
    meet(&tls, &second, &client, NAME).await.unwrap().resumed
}

#[tokio::test]
async fn a_ticket_resumes_while_the_policy_of_its_host_stays() {
    let (one, other) = (issue(), issue());
    let world = World::default().secret("a", &one);
    let world = world.route("a", NAME, &["a"]);
    let more = world.clone().secret("b", &other);
    let more = more.route("b", "www.example.com", &["b"]);
    // Another name of the same route's host, and another route on it, touch its rules only.
    let shared = world.clone().route("b", NAME, &["a"]);
    for version in VERSIONS {
        for after in [&world, &more, &shared] {
            let change = (&world, after);
            assert!(
                resumes(
                    version,
                    Tls12Resumption::SessionIdOrTickets,
                    change,
                    &[&one]
                )
                .await
            );
        }
        let tls = Tls::new().unwrap();
        let client = client(version, &[&one], Tls12Resumption::SessionIdOrTickets);
        let mut table = world.after(&RouteTable::empty());
        assert!(!meet(&tls, &table, &client, NAME).await.unwrap().resumed);
        // It goes away and comes back, the same.
        for world in [&world.clone().without_routes(), &world] {
            table = world.after(&table);
        }
        assert!(meet(&tls, &table, &client, NAME).await.unwrap().resumed);
    }
}

#[tokio::test]
async fn a_ticket_does_not_resume_under_another_policy_of_its_host() {
    let (one, other) = (issue(), issue());
    let world = World::default().secret("a", &one).secret("b", &other);
    let before = world.clone().route("a", "*.example.com", &["a"]);
    let renewed = before.clone().secret("a", &other);
    let second_certificate = world.clone().route("a", "*.example.com", &["a", "b"]);
    let next_owner = world.clone().route("b", "*.example.com", &["b"]);
    // The same certificate, of another namespace's Secret.
    let copied = world.clone().secret("b", &one);
    let copied = copied.route("b", "*.example.com", &["b"]);
    // A more specific route takes the name from the wildcard.
    let more_specific = before.clone().route("b", NAME, &["a"]);
    for version in VERSIONS {
        for after in [
            &renewed,
            &second_certificate,
            &next_owner,
            &copied,
            &more_specific,
        ] {
            for tls12 in [
                Tls12Resumption::SessionIdOrTickets,
                Tls12Resumption::SessionIdOnly,
            ] {
                let resumed = resumes(version, tls12, (&before, after), &[&one, &other]).await;
                assert!(!resumed, "{version:?}: {:?}", after.resources.routes);
            }
        }
    }
}

#[tokio::test]
async fn a_ticket_does_not_resume_under_another_name() {
    let one = issue();
    let world = World::default().secret("a", &one);
    let world = world.route("a", "*.example.com", &["a"]);
    let world = world.route("a", "example.com", &["a"]);
    let table = world.after(&RouteTable::empty());
    for version in VERSIONS {
        for other in ["www.example.com", "example.com"] {
            let tls = Tls::new().unwrap();
            let client = client(version, &[&one], Tls12Resumption::SessionIdOrTickets);
            for (name, resumed) in [(NAME, false), (other, false), (other, true)] {
                let met = meet(&tls, &table, &client, name).await.unwrap();
                assert_eq!(met.resumed, resumed, "{version:?}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_ticket_does_not_get_past_a_name_that_is_not_served() {
    let one = issue();
    let served = World::default().secret("a", &one).route("a", NAME, &["a"]);
    let gone = served.clone().without_routes();
    let no_certificate = served.clone().without_secrets();
    for version in VERSIONS {
        for refusing in [&gone, &no_certificate] {
            let tls = Tls::new().unwrap();
            let client = client(version, &[&one], Tls12Resumption::SessionIdOrTickets);
            let table = served.after(&RouteTable::empty());
            meet(&tls, &table, &client, NAME).await.unwrap();
            let table = refusing.after(&table);
            let error = meet(&tls, &table, &client, NAME).await.unwrap_err();
            let told = error.get_ref().and_then(|error| error.downcast_ref());
            let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
            assert_eq!(told, Some(&alert));
        }
    }
}

#[tokio::test]
async fn a_handshake_gives_one_ticket_also_when_it_resumed() {
    let one = issue();
    let world = World::default().secret("a", &one);
    let table = world.route("a", NAME, &["a"]).after(&RouteTable::empty());
    let tls = Tls::new().unwrap();
    let client = client(&version::TLS13, &[&one], Tls12Resumption::Disabled);
    for resumed in [false, true, true] {
        let met = meet(&tls, &table, &client, NAME).await.unwrap();
        let expected = Met {
            resumed,
            tls13_tickets: 1,
        };
        assert_eq!(met, expected);
    }
}
