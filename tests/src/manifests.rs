//! Writes manifests as an operator's tools would: whole files, put in place by a rename. Beside it, the four kinds of
//! objects as small builders; what a test does not say is left to the product's defaults.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::certificate::Issued;

/// A folder of manifests that is removed with its owner.
pub struct Manifests {
    folder: TempDir,
}

impl Manifests {
    pub fn new() -> Self {
        Self {
            folder: TempDir::with_prefix("ws-ingress-manifests-").expect("a temporary folder"),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts `text` in place under `name` by an atomic rename: a reader sees the old file or the new one, never a half.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let target = self.path().join(name);
        let fresh = self.path().join(format!(".{name}.new"));
        fs::write(&fresh, text).expect("write a manifest");
        fs::rename(&fresh, &target).expect("put a manifest in place");
        target
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("remove a manifest");
    }
}

impl Default for Manifests {
    fn default() -> Self {
        Self::new()
    }
}

/// One rule of a route.
#[derive(Clone)]
pub struct Rule {
    name: Option<String>,
    path: Option<(&'static str, String)>,
    asks: Option<String>,
    forward: bool,
    backends: Vec<(String, u16, Option<u32>)>,
    externals: Vec<String>,
    timeouts: Vec<(&'static str, String)>,
    more: Vec<String>,
    proxy_protocol: Option<&'static str>,
}

impl Rule {
    /// A rule for every path, with one backend on the port that [`service`] gives.
    pub fn to(service: &str) -> Self {
        Self {
            name: None,
            path: None,
            asks: None,
            forward: false,
            backends: vec![(service.to_owned(), SERVICE_PORT, None)],
            externals: Vec::new(),
            timeouts: Vec::new(),
            more: Vec::new(),
            proxy_protocol: None,
        }
    }

    /// A field as it is written on one line, such as `allowMissingOrigin: false`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.more.push(line.to_owned());
        self
    }

    /// A rule for every path, with one external backend.
    pub fn to_external(name: &str) -> Self {
        Self {
            backends: Vec::new(),
            externals: vec![name.to_owned()],
            ..Self::to(name)
        }
    }

    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn exact(mut self, path: &str) -> Self {
        self.path = Some(("Exact", path.to_owned()));
        self
    }

    #[must_use]
    pub fn prefix(mut self, path: &str) -> Self {
        self.path = Some(("PathPrefix", path.to_owned()));
        self
    }

    /// What a request must have beside its path, as the inside of a YAML flow map.
    #[must_use]
    pub fn asking(mut self, conditions: &str) -> Self {
        self.asks = Some(conditions.to_owned());
        self
    }

    /// Ordinary HTTP on this rule is forwarded, not refused.
    #[must_use]
    pub fn forward(mut self) -> Self {
        self.forward = true;
        self
    }

    #[must_use]
    pub fn timeout(mut self, field: &'static str, value: &str) -> Self {
        self.timeouts.push((field, value.to_owned()));
        self
    }

    /// What connections to every backend begin with.
    #[must_use]
    pub fn proxy_protocol(mut self, version: &'static str) -> Self {
        self.proxy_protocol = Some(version);
        self
    }

    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        if let Some(backend) = self.backends.last_mut() {
            backend.2 = Some(weight);
        }
        self
    }

    /// Another backend, with its weight.
    #[must_use]
    pub fn and(mut self, service: &str, weight: u32) -> Self {
        self.backends
            .push((service.to_owned(), SERVICE_PORT, Some(weight)));
        self
    }

    fn yaml(&self) -> String {
        let mut text = String::from("  - backendRefs:\n");
        for (service, port, weight) in &self.backends {
            let _ = writeln!(text, "    - name: {service}\n      port: {port}");
            if let Some(weight) = weight {
                let _ = writeln!(text, "      weight: {weight}");
            }
            if let Some(version) = self.proxy_protocol {
                let _ = writeln!(text, "      proxyProtocol: {version}");
            }
        }
        for external in &self.externals {
            let _ = writeln!(
                text,
                "    - group: ws-ingress.dev\n      kind: ExternalBackend\n      name: {external}"
            );
            if let Some(version) = self.proxy_protocol {
                let _ = writeln!(text, "      proxyProtocol: {version}");
            }
        }
        if let Some(name) = &self.name {
            let _ = writeln!(text, "    name: {name}");
        }
        if self.path.is_some() || self.asks.is_some() {
            text.push_str("    matches:\n    -");
            let path = self.path.iter();
            let path =
                path.map(|(kind, value)| format!("path: {{ type: {kind}, value: {value} }}"));
            let parts = path.chain(self.asks.clone()).collect::<Vec<_>>();
            let _ = writeln!(text, " {{ {} }}", parts.join(", "));
        }
        if self.forward {
            text.push_str("    nonUpgrade: Forward\n");
        }
        for line in &self.more {
            let _ = writeln!(text, "    {line}");
        }
        if !self.timeouts.is_empty() {
            text.push_str("    timeouts:\n");
            for (field, value) in &self.timeouts {
                let _ = writeln!(text, "      {field}: {value}");
            }
        }
        text
    }
}

/// How a route's hosts are served.
pub enum Tls<'a> {
    /// `mode: Terminate` with this Secret.
    Terminate(&'a str),
    /// `mode: None`: on the plain listener.
    Plain,
}

/// A `WebSocketRoute` as one YAML document.
pub fn route(name: &str, hosts: &[&str], tls: &Tls<'_>, rules: &[Rule]) -> String {
    let mut text = format!(
        "---\napiVersion: ws-ingress.dev/v1alpha1\nkind: WebSocketRoute\nmetadata:\n  name: {name}\nspec:\n  hostnames:\n"
    );
    for host in hosts {
        let _ = writeln!(text, "  - \"{host}\"");
    }
    match tls {
        Tls::Terminate(secret) => {
            let _ = writeln!(
                text,
                "  tls:\n    mode: Terminate\n    certificateRefs:\n    - name: {secret}"
            );
        }
        Tls::Plain => text.push_str("  tls:\n    mode: None\n"),
    }
    text.push_str("  rules:\n");
    for rule in rules {
        text.push_str(&rule.yaml());
    }
    text
}

/// The same routes in another class than the default.
pub fn in_class(class: &str, routes: &str) -> String {
    routes.replace(
        "\nspec:\n  hostnames:",
        &format!("\nspec:\n  className: {class}\n  hostnames:"),
    )
}

/// A `kubernetes.io/tls` Secret.
pub fn secret(name: &str, issued: &Issued) -> String {
    secret_of(name, &issued.chain_pem, &issued.key_pem)
}

/// The same from two texts that need not belong together.
pub fn secret_of(name: &str, chain_pem: &str, key_pem: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  name: {name}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(chain_pem),
        indented(key_pem)
    )
}

fn indented(text: &str) -> String {
    text.lines()
        .fold(String::new(), |all, line| all + "    " + line + "\n")
}

/// How an [`external`] backend is spoken to.
pub enum Security<'a> {
    Plain,
    /// TLS by the authorities of the system, or of the flag.
    Tls,
    /// TLS by this authority alone, in PEM.
    TlsBy(&'a str),
}

/// An `ExternalBackend`.
pub fn external(name: &str, host: &str, port: u16, security: &Security<'_>) -> String {
    let mut text = format!(
        "---\napiVersion: ws-ingress.dev/v1alpha1\nkind: ExternalBackend\nmetadata:\n  name: {name}\nspec:\n  host: {host}\n  port: {port}\n"
    );
    match security {
        Security::Plain => {}
        Security::Tls => text.push_str("  tls: {}\n"),
        Security::TlsBy(pem) => {
            let pem = indented(&indented(pem));
            let _ = write!(text, "  tls:\n    caCertificates: |\n{pem}");
        }
    }
    text
}

/// The port of every Service here; the addresses behind it have their own.
pub const SERVICE_PORT: u16 = 80;

/// A Service whose port 80 leads to the named port `ws` of its endpoints.
pub fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - name: ws\n    port: {SERVICE_PORT}\n    targetPort: ws\n"
    )
}

/// The ready addresses of a Service, one slice each, because each has a port of its own. None gives no slice.
pub fn endpoints(service: &str, addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(|address| slice(service, *address, "ready: true"))
        .collect()
}

/// One `EndpointSlice` with one address; `conditions` is the inside of a YAML flow map.
pub fn slice(service: &str, address: SocketAddr, conditions: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{port}\n  labels:\n    kubernetes.io/service-name: {service}\naddressType: {family}\nendpoints:\n- addresses: [\"{ip}\"]\n  conditions: {{ {conditions} }}\nports:\n- name: ws\n  port: {port}\n  protocol: TCP\n"
    )
}
