//! The harness of the end-to-end tests: real processes, real sockets, one file a part.
//!
//! A test in `tests/*.rs` builds a [`scene::Scene`] (manifests, a certificate, a running `ws-ingress`), talks to it as
//! a client would, and watches what a backend saw. The product is only ever driven as a process: this crate depends on
//! none of its crates, so a test cannot pass because it shares a mistake with the code.
//!
//! Rules: every address is 127.0.0.1 with a port the kernel chose (a backend in a cluster: this machine's own); every wait has a limit and a name
//! ([`wait`]); nothing sleeps to give something else time; every child is ended by its own pid.
//!
//! | part | what it holds |
//! |---|---|
//! | [`way`] | the two ways to serve a route, for tests that run over both |
//! | [`scene`], [`gateway`], [`manifests`], [`certificate`] | the product under test and what it is given |
//! | [`client`], [`raw`], [`frame`], [`talkers`], [`page`] | the client side: a WebSocket client; bytes as they are; many that talk; a browser |
//! | [`backend`], [`recorder`], [`echo`], [`echo_process`] | the backend side: scripted sockets; a backend that reads every byte strictly; the echo server and its process |
//! | [`dns`] | a name server that says what a test wants |
//! | [`kubernetes`] | a real API server, and the product in a cluster |
//! | [`node`] | a cluster that runs pods, and the product as its chart installs it |
//! | [`helm`], [`chart`], [`chart_cases`] | the chart, rendered and installed; its values; sets of values |
//! | [`nginx`] | real nginx on the example's files |
//! | [`conversation`] | one socket and many random messages, through whichever client |
//! | [`metrics`], [`wait`], [`tools`], [`malformed`] | reading, waiting, external programs, the data file |
//! | [`mod@bench`] | what the relay costs, beside other proxies |
//! | [`namespace`] | a network of a test's own |
//! | [`canary`] | secrets, and the search for them in what a program shows |
#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a harness fails by panicking with what it saw, and shows logs on stderr"
)]

pub mod backend;
pub mod bench;
pub mod canary;
pub mod certificate;
pub mod chart;
pub mod chart_cases;
pub mod client;
pub mod conversation;
pub mod dns;
pub mod echo;
pub mod echo_process;
pub mod frame;
pub mod gateway;
pub mod helm;
pub mod kubernetes;
pub mod malformed;
pub mod manifests;
pub mod metrics;
pub mod namespace;
pub mod nginx;
pub mod node;
pub mod page;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod scene;
pub mod talkers;
pub mod tools;
pub mod wait;
pub mod way;
