//! The product in a cluster that runs pods, from `helm install` to its end. What is known of the cluster is a kubeconfig
//! and an address: `make node-test` and `make kind-test` run the same.
#![allow(
    clippy::print_stdout,
    reason = "how long it took and how many sockets it was is what a reader wants to know"
)]

mod images;
mod install;
mod kills;
mod rollouts;
mod strangers;
