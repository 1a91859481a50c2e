//! Flags of `ws-ingress`, each also an environment variable: `WS_INGRESS_` and the name in capitals.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use crds::DurationString;
use dataplane::args::{Bounds, Externals, Listeners, Proxies};

/// An ingress for WebSockets.
#[derive(Debug, Parser)]
#[command(name = "ws-ingress", version, about, after_help = EXIT_HELP)]
pub struct Args {
    /// Which log lines are written to stderr: error, warn, info or debug, or by module, such as info,dataplane=debug.
    #[arg(long, env = "WS_INGRESS_LOG", value_name = "FILTER", default_value = "info", value_parser = log_filter, global = true)]
    pub log: String,

    #[command(subcommand)]
    pub command: Command,
}

const EXIT_HELP: &str = "\
Exit code: 0 after SIGTERM or SIGINT, 1 when something failed, 2 for a wrong command line.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve from manifest files, without a cluster.
    ///
    /// Reads routes, Secrets, Services, EndpointSlices and reference grants from YAML files and serves what they say. Changed files take effect within
    /// a second and close no socket. SIGTERM or SIGINT (Ctrl-C) ends every socket with Close 1001 and then the process; a
    /// second one does not wait.
    Standalone(Standalone),
}

/// The flags of `standalone`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Standalone {
    /// Files, and folders with *.yaml and *.yml files at any depth. Give several one after another, repeat the flag, or separate
    /// them with ':'. No default.
    #[arg(long, env = "WS_INGRESS_MANIFESTS", value_name = "PATH", num_args = 1.., required = true, value_delimiter = ':')]
    pub manifests: Vec<PathBuf>,

    #[command(flatten)]
    pub listeners: Listeners,

    #[command(flatten)]
    pub proxies: Proxies,

    #[command(flatten)]
    pub externals: Externals,

    #[command(flatten)]
    pub bounds: Bounds,

    /// Address of /healthz, /readyz and /metrics; port 0 lets the system choose.
    #[arg(
        long,
        env = "WS_INGRESS_STATUS_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9901"
    )]
    pub status_address: SocketAddr,

    /// After SIGTERM, how long new connections are still taken while load balancers notice (units h, m, s, ms).
    #[arg(
        long,
        env = "WS_INGRESS_DRAIN_DELAY",
        value_name = "DURATION",
        default_value = "0s"
    )]
    pub drain_delay: DurationString,

    /// After that, how long open sockets have to close before they are cut (units h, m, s, ms).
    #[arg(
        long,
        env = "WS_INGRESS_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s"
    )]
    pub drain_timeout: DurationString,

    /// Class of the routes that are served: spec.className. Routes of another class are ignored.
    #[arg(long, env = "WS_INGRESS_CLASS", value_name = "NAME", default_value = crds::DEFAULT_CLASS)]
    pub class: String,
}

/// Checked here, kept as text: a filter cannot be cloned, which clap asks of a value.
fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Standalone, clap::Error> {
        let arguments = ["ws-ingress", "standalone"].iter().chain(arguments);
        let Command::Standalone(standalone) = Args::try_parse_from(arguments)?.command;
        Ok(standalone)
    }

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn several_manifests_in_every_way() {
        let expected: Vec<PathBuf> = ["a", "b", "c"].map(PathBuf::from).into();
        assert_eq!(
            parse(&["--manifests", "a", "b", "c"]).unwrap().manifests,
            expected
        );
        assert_eq!(
            parse(&["--manifests", "a", "--manifests", "b", "--manifests", "c"])
                .unwrap()
                .manifests,
            expected
        );
        assert_eq!(
            parse(&["--manifests", "a:b", "c"]).unwrap().manifests,
            expected
        );
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = parse(&["--manifests", "a"]).unwrap();
        assert_eq!(args.listeners.https_address.to_string(), "[::]:8443");
        assert_eq!(args.listeners.http_address.to_string(), "[::]:8080");
        assert_eq!(args.listeners.https_public_port.get(), 443);
        assert_eq!(args.status_address.to_string(), "127.0.0.1:9901");
        assert_eq!(args.drain_delay.as_str(), "0s");
        assert_eq!(args.drain_timeout.as_str(), "5s");
        assert_eq!(args.class, "ws-ingress");
        assert!(args.proxies.trusted_proxy_cidrs.is_empty());
        assert!(args.proxies.proxy_protocol_cidrs.is_empty());
        assert_eq!(args.bounds.max_concurrent_tls_handshakes, None);
        // The flag's default and that of the limits are one.
        let default = dataplane::Limits::default().half_close;
        assert_eq!(args.bounds.half_close_timeout, default);
    }

    #[track_caller]
    fn check_refused(arguments: &[&str], expected: &str) {
        let error = parse(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn wrong_flags_are_refused_with_the_mend() {
        check_refused(&[], "--manifests <PATH>");
        check_refused(&["--manifests", "a", "--drain-timeout", "5"], "such as 30s");
        for timeout in ["5", "25h", "18446744073709551615s"] {
            let flag = "--half-close-timeout";
            check_refused(&["--manifests", "a", flag, timeout], flag);
        }
        check_refused(
            &["--manifests", "a", "--https-address", "8443"],
            "--https-address",
        );
        for number in ["0", "65536", "many"] {
            let flag = "--max-concurrent-tls-handshakes";
            check_refused(&["--manifests", "a", flag, number], flag);
        }
        let flag = "--backend-source-address";
        check_refused(&["--manifests", "a", flag, "10.0.0.0/8"], flag);
        for flag in ["--trusted-proxy-cidr", "--proxy-protocol-cidr"] {
            check_refused(&["--manifests", "a", flag, "10.0.0.1/33"], flag);
            check_refused(&["--manifests", "a", flag, "example.com"], flag);
        }
    }

    #[test]
    fn every_flag_has_its_environment_variable_and_help() {
        let command = Args::command();
        let standalone = command.find_subcommand("standalone").unwrap();
        for argument in standalone
            .get_arguments()
            .filter(|argument| argument.get_id() != "help")
        {
            let name = argument.get_long().unwrap();
            let variable = format!("WS_INGRESS_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), variable);
            assert!(argument.get_help().is_some(), "{name} has no help");
        }
    }
}
