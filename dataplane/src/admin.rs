//! The admin listener, which never leaves the pod: `POST /drain`, `GET /debug/table`.
//!
//! It is bound to a loopback address or not at all: whoever reaches it may end every socket. The table is shown without keys; a
//! certificate by the SHA-256 of its leaf.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use route_table::RouteTable;
use tokio::sync::watch;

use crate::forward::Body;
use crate::listener::{BindError, Bound};
use crate::local_http::{self, text};
use crate::run::Stop;
use crate::signals::raise;

/// A person and a script.
const CONNECTIONS: usize = 8;

/// Why the admin address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "the admin address {0} can be reached from outside; choose a loopback address such as 127.0.0.1:9900 with --admin-address"
    )]
    NotLoopback(SocketAddr),
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// An admin listener that listens already.
#[derive(Debug)]
pub struct Admin {
    bound: Bound,
}

impl Admin {
    /// Listens on a loopback address.
    pub fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        if !address.ip().is_loopback() {
            return Err(AdminError::NotLoopback(address));
        }
        Ok(Self {
            bound: Bound::new("admin", address)?,
        })
    }

    /// The address that is really listened on.
    pub fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// Serves until it is dropped; `stop` is what a drain is asked of.
    pub async fn serve(self, table: watch::Receiver<Arc<RouteTable>>, stop: watch::Sender<Stop>) {
        local_http::serve(self.bound.listener, CONNECTIONS, move |request| {
            answer(request, &table, &stop)
        })
        .await;
    }
}

fn answer(
    request: &Request<Incoming>,
    table: &watch::Receiver<Arc<RouteTable>>,
    stop: &watch::Sender<Stop>,
) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/drain") => {
            tracing::info!("told to drain over the admin address");
            raise(stop, Stop::Drain);
            text(StatusCode::ACCEPTED, "draining\n")
        }
        (_, "/drain") => text(StatusCode::METHOD_NOT_ALLOWED, "drain with POST\n"),
        (&Method::GET, "/debug/table") => text(StatusCode::OK, describe(&table.borrow().clone())),
        (_, "/debug/table") => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "the table is read with GET\n",
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are POST /drain and GET /debug/table\n",
        ),
    }
}

/// The table for people, one resource a paragraph.
fn describe(table: &RouteTable) -> String {
    let mut page = format!("generation {}\n", table.generation());
    for (key, route) in table.routes() {
        let _ = writeln!(page, "\nroute {key}\n{route:#?}");
    }
    for (key, backend) in table.backends() {
        let _ = writeln!(page, "\nbackend {key}");
        for endpoint in &backend.endpoints {
            let _ = writeln!(page, "    {} {:?}", endpoint.address, endpoint.state);
        }
    }
    for (key, external) in table.externals() {
        let _ = writeln!(page, "\nexternal backend {key}\n{external:#?}");
    }
    for (key, certificate) in table.certificates() {
        let _ = writeln!(
            page,
            "\ncertificate {key}\n    sha256 {}\n    {certificate:?}",
            certificate.fingerprint()
        );
    }
    page
}
