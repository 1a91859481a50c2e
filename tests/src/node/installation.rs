//! The installations that the tests have, side by side in one cluster: a test mostly waits for pods, and another one can wait at
//! the same time. Each serves a class of its own, from a namespace of its own, at node ports of its own.

use std::sync::atomic::AtomicBool;

use tokio::sync::{Mutex, MutexGuard};

/// The release, in each of its namespaces.
pub const RELEASE: &str = "ws-ingress";

/// One of them, and what a test has to know to stay within it.
#[derive(Debug)]
pub struct Installation {
    /// Of the release. Its class has this name too.
    pub namespace: &'static str,
    /// Of the route and its backend.
    pub chat: &'static str,
    /// The node port of TLS, also in the port mappings of `tests/kind.yaml`.
    pub https_port: u16,
    /// The node port of plain text.
    pub http_port: u16,
    /// Whether the release brings the CRDs, which belong to one release of a cluster.
    pub owns_crds: bool,
    /// Whether the release has the usual values: helm takes seconds to find out.
    pub(super) as_usual: AtomicBool,
    turn: Mutex<()>,
}

/// A test's turn at an installation; no other test uses it until this is dropped.
pub type Turn = MutexGuard<'static, ()>;

/// The one that the documents make, and a test that runs alone.
static FIRST: Installation = Installation {
    namespace: "ws-ingress",
    chat: "chat",
    https_port: 30443,
    http_port: 30080,
    owns_crds: true,
    as_usual: AtomicBool::new(false),
    turn: Mutex::const_new(()),
};

/// Its ports are among those that Kubernetes gives nobody who does not ask (30000 to 30085), as long as there are others.
static SECOND: Installation = Installation {
    namespace: "beside",
    chat: "beside-chat",
    https_port: 30043,
    http_port: 30081,
    owns_crds: false,
    as_usual: AtomicBool::new(false),
    turn: Mutex::const_new(()),
};

/// Whichever is free first; the first one when all are.
pub(super) async fn any() -> (&'static Installation, Turn) {
    tokio::select! {
        biased;
        turn = FIRST.turn.lock() => (&FIRST, turn),
        turn = SECOND.turn.lock() => (&SECOND, turn),
    }
}

/// The first one, once it is free.
pub(super) async fn first() -> (&'static Installation, Turn) {
    (&FIRST, FIRST.turn.lock().await)
}
