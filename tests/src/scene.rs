//! The usual scene: one host with a certificate, a gateway, and the backends behind it, each in its own manifest file
//! so that a test can change one thing.

use std::io;
use std::net::SocketAddr;

use crate::backend::Backend;
use crate::certificate::Authority;
use crate::client::Dial;
use crate::gateway::{Gateway, Settings};
use crate::manifests::{Manifests, Rule, Tls, endpoints, route, secret, service};
use crate::raw::{Connection, Request, Response, upgrade};

/// The host of every scene, and the Service behind it in most.
pub const HOST: &str = "chat.example.com";
pub const SERVICE: &str = "chat";

/// Another host with a certificate and a route of its own.
pub const OTHER_HOST: &str = "other.example.com";

/// A host that is served on the plain listener (`tls.mode: None`).
pub const PLAIN_HOST: &str = "plain.example.com";

/// The name of the Secret of [`HOST`].
pub const SECRET: &str = "chat-tls";

/// The manifest files of a scene.
pub const CERTIFICATE_FILE: &str = "certificate.yaml";
pub const ROUTE_FILE: &str = "route.yaml";
pub const SERVICE_FILE: &str = "service.yaml";
pub const ENDPOINTS_FILE: &str = "endpoints.yaml";

pub struct Scene {
    pub manifests: Manifests,
    pub authority: Authority,
    pub gateway: Gateway,
}

impl Scene {
    /// [`HOST`] with one rule for every path, in front of this backend.
    pub async fn in_front_of(backend: SocketAddr) -> Self {
        Self::with_rules(&[Rule::to(SERVICE).named("talk")], &[(SERVICE, &[backend])]).await
    }

    /// [`HOST`] with these rules and Services.
    pub async fn with_rules(rules: &[Rule], services: &[(&str, &[SocketAddr])]) -> Self {
        Self::start(rules, services, &Settings::default()).await
    }

    /// The same with other flags.
    pub async fn start(
        rules: &[Rule],
        services: &[(&str, &[SocketAddr])],
        settings: &Settings,
    ) -> Self {
        let (manifests, authority) = (Manifests::new(), Authority::new());
        let mut routes = route("chat", &[HOST], &Tls::Terminate(SECRET), rules);
        routes += &route("other", &[OTHER_HOST], &Tls::Terminate("other-tls"), rules);
        routes += &route("plain", &[PLAIN_HOST], &Tls::Plain, rules);
        manifests.write(CERTIFICATE_FILE, &secret(SECRET, &authority.issue(&[HOST])));
        manifests.write(
            "other-certificate.yaml",
            &secret("other-tls", &authority.issue(&[OTHER_HOST])),
        );
        manifests.write(ROUTE_FILE, &routes);
        manifests.write(
            SERVICE_FILE,
            &services
                .iter()
                .map(|(name, _)| service(name))
                .collect::<String>(),
        );
        let slices: String = services
            .iter()
            .map(|(name, addresses)| endpoints(name, addresses))
            .collect();
        manifests.write(ENDPOINTS_FILE, &slices);
        let gateway = Gateway::start(&[manifests.path()], settings).await;
        Self {
            manifests,
            authority,
            gateway,
        }
    }

    /// These routes, as YAML; [`SECRET`] is for all of `hosts`, and `service` has this backend.
    pub async fn of_routes(
        routes: &str,
        hosts: &[&str],
        backend: SocketAddr,
        settings: &Settings,
    ) -> Self {
        let (manifests, authority) = (Manifests::new(), Authority::new());
        manifests.write(CERTIFICATE_FILE, &secret(SECRET, &authority.issue(hosts)));
        manifests.write(ROUTE_FILE, routes);
        manifests.write(SERVICE_FILE, &service(SERVICE));
        manifests.write(ENDPOINTS_FILE, &endpoints(SERVICE, &[backend]));
        let gateway = Gateway::start(&[manifests.path()], settings).await;
        Self {
            manifests,
            authority,
            gateway,
        }
    }

    /// Only the route of [`HOST`], as a test rewrites it.
    pub fn write_route(&self, rules: &[Rule]) {
        self.manifests.write(
            ROUTE_FILE,
            &route("chat", &[HOST], &Tls::Terminate(SECRET), rules),
        );
    }

    /// A wss client of [`HOST`].
    pub fn client(&self) -> Dial {
        Dial::wss(self.gateway.https, HOST, self.authority.root())
    }

    /// A TLS connection with the SNI of [`HOST`].
    pub async fn raw(&self) -> Connection {
        self.raw_as(HOST).await.expect("a TLS handshake")
    }

    pub async fn raw_as(&self, sni: &str) -> io::Result<Connection> {
        Connection::tls(self.gateway.https, sni, self.authority.root()).await
    }

    /// A request on its way: the client that sent it over a new TLS connection, the backend's end, and what arrived there.
    pub async fn asked(
        &self,
        backend: &mut Backend,
        request: impl AsRef<[u8]>,
    ) -> (Connection, Connection, Request) {
        let mut client = self.raw().await;
        client
            .send(request)
            .await
            .expect("the proxy reads a request");
        let (server, seen) = backend.next().await;
        (client, server, seen)
    }

    /// An open tunnel of [`HOST`]: the client's end, and the end of a backend that the test plays.
    pub async fn tunnel(&self, backend: &mut Backend) -> (Connection, Connection) {
        self.tunnel_of(self.raw().await, backend).await
    }

    /// The same for a client that takes few bytes without reading them.
    pub async fn narrow_tunnel(&self, backend: &mut Backend) -> (Connection, Connection) {
        let client = Connection::narrow_tls(self.gateway.https, HOST, self.authority.root()).await;
        self.tunnel_of(client.expect("a TLS handshake"), backend)
            .await
    }

    async fn tunnel_of(
        &self,
        mut client: Connection,
        backend: &mut Backend,
    ) -> (Connection, Connection) {
        client
            .send(upgrade(HOST, "/", ""))
            .await
            .expect("a request");
        let server = backend.next_open().await;
        assert_eq!(client.response("GET").await.expect("an answer").status, 101);
        (client, server)
    }

    /// Tables that were swapped in so far.
    pub async fn swaps(&self) -> u64 {
        let metrics = self.gateway.metrics().await;
        metrics.sum("ws_ingress_table_swaps_total", &[])
    }

    /// Waits until no socket is open and returns how many ended for this cause, or for any.
    pub async fn relays_ended(&self, cause: Option<&str>) -> u64 {
        self.gateway.open_sockets(0).await;
        let labels: Vec<_> = cause.map(|cause| ("cause", cause)).into_iter().collect();
        let metrics = self.gateway.metrics().await;
        metrics.sum("ws_ingress_relays_ended_total", &labels)
    }

    /// Sends a request over a new TLS connection and reads the whole answer.
    pub async fn ask(&self, request: &str) -> Response {
        ask(self.raw().await, request).await
    }

    /// The same on the plain listener.
    pub async fn ask_plain(&self, request: &str) -> Response {
        let connection = Connection::plain(self.gateway.http)
            .await
            .expect("the plain listener takes connections");
        ask(connection, request).await
    }
}

async fn ask(mut connection: Connection, request: &str) -> Response {
    let method = request.split(' ').next().unwrap_or_default();
    connection
        .send(request)
        .await
        .expect("the proxy reads a request");
    match connection.response(method).await {
        Ok(response) => response,
        Err(error) => panic!("no answer to {request:?}: {error}"),
    }
}
