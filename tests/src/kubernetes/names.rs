//! Names that programs, chart and tests have in common: of objects, of flags' and variables' values, of what is printed. They
//! are written here once for the harness, and not taken from a product crate: a name that changes by mistake shall fail tests.

/// The accounts that the chart makes.
pub const CONTROLLER_ACCOUNT: &str = "ws-ingress-controller";
pub const DATAPLANE_ACCOUNT: &str = "ws-ingress-dataplane";

/// The Lease, in the namespace of the installation.
pub const LEASE: &str = "ws-ingress-controller";

/// The Service in front of the dataplane's pods, in the same namespace.
pub const DATAPLANE_SERVICE: &str = "ws-ingress-dataplane";

/// Where the controller publishes the authority of the push, and under which key.
pub const AUTHORITY_CONFIG_MAP: &str = "ws-ingress-push-ca";
pub const AUTHORITY_KEY: &str = "ca.crt";

/// The audience of the token that a dataplane presents.
pub const AUDIENCE: &str = "ws-ingress-controller";

/// The host of `--controller`. Whatever it is, the controller's certificate must be accepted for it.
pub const CONTROLLER_HOST: &str = "127.0.0.1";

/// A program prints one line with the addresses that it listens on: this word, then `name=address` pairs.
pub const LISTENING: &str = "listening ";
pub const CONTROLLER_ADDRESSES: [&str; 2] = ["push=", "status="];
pub const DATAPLANE_ADDRESSES: [&str; 4] = ["https=", "http=", "status=", "admin="];

/// How a controller learns of the pod that it runs in (the Lease's identity has the pod's uid).
pub const POD_NAME: &str = "WS_INGRESS_POD_NAME";
pub const POD_UID: &str = "WS_INGRESS_POD_UID";

/// How a program finds the API server outside a cluster, as all clients of Kubernetes do.
pub const KUBECONFIG: &str = "KUBECONFIG";
