//! Flags of `ws-ingress-controller`, each also an environment variable: `WS_INGRESS_` and the name in capitals.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Parser;
use crds::name::is_subdomain;
use ipnet::IpNet;

use crate::store::ObjectKey;

/// The controller of ws-ingress: compiles routes and pushes the route table to the dataplane.
#[derive(Debug, Clone, Parser)]
#[command(name = "ws-ingress-controller", version, about, after_help = AFTER_HELP)]
pub struct Args {
    /// Which log lines are written to stderr: error, warn, info or debug, or by module, such as info,controller=debug. The
    /// default leaves out what the Kubernetes client says of every failed request; the controller says it once.
    #[arg(long, env = "WS_INGRESS_LOG", value_name = "FILTER", default_value = "info,kube_client=off", value_parser = log_filter)]
    pub log: String,

    /// Class of the routes that are served: spec.className. Routes of another class are ignored.
    #[arg(long, env = "WS_INGRESS_CLASS", value_name = "NAME", default_value = crds::DEFAULT_CLASS)]
    pub class: String,

    /// Watch this namespace only; repeat the flag, or separate several with ','. Default: all namespaces.
    #[arg(long = "watch-namespace", env = "WS_INGRESS_WATCH_NAMESPACE", value_name = "NAME", value_delimiter = ',', value_parser = object_name)]
    pub watch_namespaces: Vec<String>,

    /// Address that dataplanes dial for the route table; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_PUSH_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:9443"
    )]
    pub push_address: SocketAddr,

    /// Address of /healthz, /readyz and /metrics; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_STATUS_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:9901"
    )]
    pub status_address: SocketAddr,

    /// Namespace of the Lease that decides which replica leads; the namespace of the installation.
    #[arg(long, env = "WS_INGRESS_LEASE_NAMESPACE", value_name = "NAME", default_value = "ws-ingress", value_parser = object_name)]
    pub lease_namespace: String,

    /// Name of that Lease.
    #[arg(long, env = "WS_INGRESS_LEASE_NAME", value_name = "NAME", default_value = "ws-ingress-controller", value_parser = object_name)]
    pub lease_name: String,

    /// Service of the dataplane: its ready pods decide whether a route is Programmed, its load balancer gives the addresses.
    #[arg(
        long,
        env = "WS_INGRESS_DATAPLANE_SERVICE",
        value_name = "NAMESPACE/NAME",
        default_value = "ws-ingress/ws-ingress-dataplane"
    )]
    pub dataplane_service: ObjectName,

    /// Service of the controllers, which dataplanes dial, in the namespace of the Lease. No route may lead to the pods behind it, nor
    /// to those of the dataplane.
    #[arg(
        long,
        env = "WS_INGRESS_CONTROLLER_SERVICE",
        value_name = "NAME",
        default_value = "ws-ingress-controller",
        value_parser = object_name
    )]
    pub controller_service: String,

    /// `ServiceAccount` that dataplanes run as, in the namespace of their Service; nobody else gets the route table.
    #[arg(
        long,
        env = "WS_INGRESS_DATAPLANE_SERVICE_ACCOUNT",
        value_name = "NAME",
        default_value = "ws-ingress-dataplane",
        value_parser = object_name
    )]
    pub dataplane_service_account: String,

    /// Range of addresses that no route may reach, such as the cluster's Service range; repeat the flag, or separate several with
    /// ','. Loopback, link-local, multicast and metadata addresses and our own pods and Services are always denied. Default: none besides those.
    #[arg(
        long = "denied-backend-cidr",
        env = "WS_INGRESS_DENIED_BACKEND_CIDR",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = range
    )]
    pub denied_backend_cidrs: Vec<IpNet>,

    /// metadata.uid of this pod: a container that was restarted takes the Lease of its predecessor over at once. Default: none,
    /// so that it waits for the Lease's end.
    #[arg(long, env = "WS_INGRESS_POD_UID", value_name = "UID", value_parser = pod_uid)]
    pub pod_uid: Option<String>,
}

const AFTER_HELP: &str = "\
Finds the API server by KUBECONFIG, ~/.kube/config, or the pod's own ServiceAccount.
Exit code: 0 after SIGTERM or SIGINT, 1 when something failed, 2 for a wrong command line.";

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "must be a namespace and a name with '/' between them, such as ws-ingress/ws-ingress-dataplane"
    )]
    Pair,
    #[error(
        "must hold only lower case letters, digits, '-' and '.', with a letter or digit at both ends of each part between dots, and be neither empty nor longer than 253 characters"
    )]
    Object,
    #[error("must be the uid of a pod, without '_'")]
    Uid,
}

impl ObjectName {
    /// The same as the Store names it.
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.namespace.as_str().into(),
            name: self.name.as_str().into(),
        }
    }
}

impl FromStr for ObjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once('/').ok_or(NameError::Pair)?;
        let valid = |name| object_name(name).map_err(|_| NameError::Pair);
        Ok(Self {
            namespace: valid(namespace)?,
            name: valid(name)?,
        })
    }
}

/// As Kubernetes names objects. They become parts of URLs, so nothing else may pass.
fn object_name(text: &str) -> Result<String, NameError> {
    if is_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err(NameError::Object)
    }
}

/// Addresses are compared as what they lead to, so a range of IPv4 in IPv6 clothes would never hold one.
fn range(text: &str) -> Result<IpNet, RangeError> {
    let range = text.parse::<IpNet>().map_err(RangeError::Parse)?;
    let (IpNet::V6(mapped), IpAddr::V4(address)) = (range, range.addr().to_canonical()) else {
        return Ok(range);
    };
    match mapped
        .prefix_len()
        .checked_sub(96)
        .map(|length| IpNet::new(address.into(), length))
    {
        Some(Ok(meant)) => Err(RangeError::Mapped(meant)),
        Some(Err(_)) | None => Ok(range),
    }
}

/// Why a text is no range of addresses.
#[derive(Debug, thiserror::Error)]
enum RangeError {
    #[error("must be an address and the length of its prefix, such as 10.96.0.0/12")]
    Parse(#[source] ipnet::AddrParseError),
    #[error("holds IPv4 addresses, which are compared as such; write {0}")]
    Mapped(IpNet),
}

/// The identity in the Lease is cut at its last '_'.
fn pod_uid(text: &str) -> Result<String, NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
        return Err(NameError::Uid);
    }
    Ok(text.to_owned())
}

/// Checked here, kept as text: a filter cannot be cloned, which clap asks of a value.
fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["ws-ingress-controller"].iter().chain(arguments))
    }

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.class, "ws-ingress");
        assert!(args.watch_namespaces.is_empty());
        assert_eq!(args.push_address.to_string(), "[::]:9443");
        assert_eq!(args.status_address.to_string(), "[::]:9901");
        assert_eq!(args.lease_namespace, "ws-ingress");
        assert_eq!(args.lease_name, "ws-ingress-controller");
        assert_eq!(args.dataplane_service.namespace, "ws-ingress");
        assert_eq!(args.dataplane_service.name, "ws-ingress-dataplane");
        assert_eq!(args.controller_service, "ws-ingress-controller");
        assert_eq!(args.dataplane_service_account, "ws-ingress-dataplane");
        assert!(args.denied_backend_cidrs.is_empty());
    }

    #[test]
    fn several_namespaces_and_ranges_in_every_way() {
        let args = parse(&[
            "--watch-namespace",
            "a,b",
            "--watch-namespace",
            "c",
            "--denied-backend-cidr",
            "10.96.0.0/12,fd00::/8",
        ]);
        let args = args.unwrap();
        assert_eq!(args.watch_namespaces, ["a", "b", "c"]);
        assert_eq!(args.denied_backend_cidrs.len(), 2);
    }

    #[track_caller]
    fn check_refused(arguments: &[&str], expected: &str) {
        let error = parse(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn wrong_flags_are_refused_with_the_mend() {
        check_refused(&["--dataplane-service", "chat"], "with '/' between");
        check_refused(&["--dataplane-service", "a/b/c"], "with '/' between");
        check_refused(&["--watch-namespace", "a/b"], "lower case");
        check_refused(&["--watch-namespace", ""], "neither empty");
        check_refused(&["--lease-name", ".."], "at both ends");
        check_refused(&["--lease-name=-a"], "at both ends");
        check_refused(
            &["--denied-backend-cidr", "10.0.0.1/33"],
            "--denied-backend-cidr",
        );
        check_refused(
            &["--denied-backend-cidr", "::ffff:10.0.0.0/104"],
            "write 10.0.0.0/8",
        );
        check_refused(&["--pod-uid", "a_b"], "without '_'");
    }

    #[test]
    fn every_flag_has_its_environment_variable_and_help() {
        let command = Args::command();
        for argument in command.get_arguments() {
            if ["help", "version"].contains(&argument.get_id().as_str()) {
                continue;
            }
            let name = argument.get_long().unwrap();
            let variable = format!("WS_INGRESS_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), variable);
            assert!(argument.get_help().is_some(), "{name} has no help");
        }
    }
}
