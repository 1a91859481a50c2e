//! The two ways from a route to a dataplane that serves it: `ws-ingress standalone` with files, and a controller that reads the
//! Kubernetes API and pushes to another process. A client must not see which it is, so the tests of what clients see run
//! over both: [`over_both_ways`](crate::over_both_ways).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::Signal;

use crate::certificate::Authority;
use crate::client::Dial;
use crate::echo_process::own_address;
use crate::kubernetes::installed::{Installed, cluster};
use crate::manifests::Rule;
use crate::scene::{HOST, SERVICE, Scene};

#[derive(Clone, Copy, Debug)]
pub enum Way {
    Standalone,
    Cluster,
}

/// [`HOST`] with one rule, served on one of the ways.
pub enum Served {
    Standalone(Box<Scene>),
    Cluster(Box<Installed>),
}

/// Makes each of these functions of a [`Way`] two tests.
#[macro_export]
macro_rules! over_both_ways {
    ($($test:ident)*) => {
        mod standalone {$(
            #[tokio::test]
            async fn $test() {
                super::$test($crate::way::Way::Standalone).await;
            }
        )*}

        mod cluster {$(
            #[tokio::test]
            async fn $test() {
                super::$test($crate::way::Way::Cluster).await;
            }
        )*}
    };
}

impl Way {
    /// Where a backend has to listen: in a cluster an endpoint is never a loopback address.
    pub fn backend_address(self) -> IpAddr {
        match self {
            Self::Standalone => Ipv4Addr::LOCALHOST.into(),
            Self::Cluster => own_address(),
        }
    }

    /// Serves a rule of [`SERVICE`] with this backend; `None` when a tool is missing, which is recorded.
    pub async fn serve(self, rule: Rule, backend: SocketAddr) -> Option<Served> {
        let rules = [rule];
        Some(match self {
            Self::Standalone => {
                let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend])]).await;
                Served::Standalone(Box::new(scene))
            }
            Self::Cluster => {
                let installed = Installed::start(&cluster().await?).await;
                installed.serve_by(&rules, backend).await;
                Served::Cluster(Box::new(installed))
            }
        })
    }
}

impl Served {
    /// Where wss clients connect.
    pub fn https(&self) -> SocketAddr {
        match self {
            Self::Standalone(scene) => scene.gateway.https,
            Self::Cluster(installed) => installed.dataplane.https,
        }
    }

    /// Issued the certificate of [`HOST`].
    pub fn authority(&self) -> &Authority {
        match self {
            Self::Standalone(scene) => &scene.authority,
            Self::Cluster(installed) => &installed.authority,
        }
    }

    /// The namespace of the route.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Standalone(_) => "default",
            Self::Cluster(installed) => &installed.namespace.name,
        }
    }

    /// A wss client of [`HOST`].
    pub fn client(&self) -> Dial {
        Dial::wss(self.https(), HOST, self.authority().root())
    }

    /// Sends Ctrl-C to whoever holds the sockets.
    pub fn interrupt(&self) {
        match self {
            Self::Standalone(scene) => scene.gateway.signal(Signal::INT),
            Self::Cluster(installed) => installed.dataplane.signal(Signal::INT),
        }
    }

    /// Waits for the end that this leads to; the last line says what became of the sockets.
    pub async fn drained(&mut self, limit: Duration) -> String {
        match self {
            Self::Standalone(scene) => scene.gateway.drained(limit).await,
            Self::Cluster(installed) => installed.dataplane.drained(limit).await,
        }
    }
}
