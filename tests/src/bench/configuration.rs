//! The files of the proxies: the others' as close as each comes to what ws-ingress does, one host with a certificate, `/chat` to one
//! backend, WebSocket upgrades, the client's address passed on, no access log, an hour for silent sockets.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::certificate::Issued;
use crate::manifests::{Rule, Tls, endpoints, route, secret, service};
use crate::nginx::examples;
use crate::scene::HOST;

/// Sockets that a proxy takes, on both sides together; within the limit of open files of most machines.
const CONNECTIONS: u32 = 20_000;

/// Where one program's files lie, and what it connects.
pub(super) struct Files<'a> {
    pub(super) folder: &'a Path,
    pub(super) address: SocketAddr,
    pub(super) backend: SocketAddr,
}

impl Files<'_> {
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
        Ok(path)
    }

    /// `tls.crt`, `tls.key`, and both in `tls.pem`, which HAProxy wants.
    pub(super) fn write_certificate(&self, issued: &Issued) -> anyhow::Result<()> {
        self.write("tls.crt", &issued.chain_pem)?;
        self.write("tls.key", &issued.key_pem)?;
        let both = format!("{}{}", issued.chain_pem, issued.key_pem);
        self.write("tls.pem", &both)?;
        Ok(())
    }

    /// A route of the defaults, and what it refers to.
    pub(super) fn ws_ingress(&self, issued: &Issued) -> String {
        let rule = Rule::to("chat").prefix("/chat");
        [
            secret("chat-tls", issued),
            service("chat"),
            endpoints("chat", &[self.backend]),
            route("chat", &[HOST], &Tls::Terminate("chat-tls"), &[rule]),
        ]
        .concat()
    }

    /// The file that people read, with the addresses and paths of the bench; its 60 s for silent sockets become an hour.
    pub(super) fn nginx_recipe(&self) -> anyhow::Result<String> {
        let file = examples().join("nginx/outer.conf");
        let mut recipe = fs::read_to_string(file)?;
        let (folder, address) = (self.folder.display(), self.address);
        let backend = format!("server {};", self.backend);
        let changes = [
            ("listen 443 ssl", format!("listen {address} ssl")),
            ("server 127.0.0.1:8282;", backend.clone()),
            ("server inner.example.net:80;", backend),
            ("proxy_read_timeout 60s", "proxy_read_timeout 1h".to_owned()),
        ];
        for (from, to) in changes {
            ensure!(recipe.contains(from), "the recipe has no {from:?}");
            recipe = recipe.replace(from, &to);
        }
        for host in [HOST, "rt.example.com"] {
            for ending in ["crt", "key"] {
                let from = format!("/etc/nginx/tls/{host}.{ending}");
                ensure!(recipe.contains(&from), "the recipe has no {from:?}");
                recipe = recipe.replace(&from, &format!("{folder}/tls.{ending}"));
            }
        }
        Ok(recipe)
    }

    /// What Debian's `nginx.conf` is around the recipe, which has TLS 1.3 of it: nginx 1.22 alone would not. One process: a worker alone, whose end is the end of all of it.
    pub(super) fn around_recipe(&self, more: &str) -> String {
        // As root nginx would give up its rights and could not write to a folder of root's.
        let user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let folder = self.folder.display();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = kinds.map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"));
        let temporary = temporary.concat();
        format!(
            "{user}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    {more}
{temporary}    include {folder}/recipe.conf;
}}
"
        )
    }

    pub(super) fn haproxy(&self) -> String {
        let (folder, address, backend) = (self.folder.display(), self.address, self.backend);
        let connections = CONNECTIONS / 2 - 200;
        format!(
            "global
    maxconn {connections}
    nbthread 1
defaults
    mode http
    option forwardfor
    timeout connect 5s
    timeout http-request 10s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend wss
    bind {address} ssl crt {folder}/tls.pem alpn http/1.1
    use_backend chat if {{ path_beg /chat }}
backend chat
    server one {backend}
"
        )
    }

    pub(super) fn envoy(&self) -> String {
        let folder = self.folder.display();
        let (ip, port) = (self.address.ip(), self.address.port());
        let (backend_ip, backend_port) = (self.backend.ip(), self.backend.port());
        format!(
            r#"static_resources:
  listeners:
  - name: wss
    address: {{ socket_address: {{ address: "{ip}", port_value: {port} }} }}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }}
            tls_certificates:
            - certificate_chain: {{ filename: "{folder}/tls.crt" }}
              private_key: {{ filename: "{folder}/tls.key" }}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: wss
          stream_idle_timeout: 3600s
          use_remote_address: true
          upgrade_configs: [{{ upgrade_type: websocket }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: chat
              domains: ["*"]
              routes:
              - match: {{ prefix: /chat }}
                route: {{ cluster: chat, timeout: 0s }}
  clusters:
  - name: chat
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{ max_connections: {CONNECTIONS}, max_pending_requests: {CONNECTIONS}, max_requests: {CONNECTIONS} }}
    load_assignment:
      cluster_name: chat
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: "{backend_ip}", port_value: {backend_port} }} }} }}
"#
        )
    }

    pub(super) fn caddy(&self) -> String {
        let (folder, backend) = (self.folder.display(), self.backend);
        let (ip, port) = (self.address.ip(), self.address.port());
        format!(
            "{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
    servers {{
        protocols h1
    }}
}}
https://{HOST}:{port} {{
    bind {ip}
    tls {folder}/tls.crt {folder}/tls.key {{
        protocols tls1.3
        curves x25519
    }}
    reverse_proxy /chat/* {backend}
}}
"
        )
    }
}
