//! A network of a test's own, whose settings touch nobody else: a namespace with nothing but its loopback.
//!
//! The kernel gives it to the thread, and to what the thread starts. A test that enters one therefore runs on one thread
//! (`#[tokio::test]` as it is), and starts its gateway and backends afterwards.

use std::fs;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::tools;

/// Whether this thread has a network of its own now. It needs root; without it the skip is recorded, and with CI=true it is a failure.
pub fn enter() -> bool {
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let entered = unshare(CloneFlags::CLONE_NEWNET);
    assert!(
        entered.is_ok() || !in_ci,
        "no network namespace, and CI=true: {entered:?}; run it as root"
    );
    let what = "a network namespace (root)";
    if entered.is_err() {
        tools::record("skipped.txt", what);
        return false;
    }
    tools::record("ran.txt", what);
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.is_ok_and(|status| status.success()), "iproute2's ip");
    true
}

/// From now on, connections of this thread's network have these local ports alone.
pub fn set_local_ports(first: u16, last: u16) {
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(file, format!("{first} {last}")).expect("root may set it");
}

/// From now on this thread's network has no IPv6 address, as in most pods of a cluster without IPv6.
pub fn disable_ipv6() {
    for interface in ["all", "lo"] {
        let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        // A kernel without IPv6 has no such file.
        if fs::exists(&file).is_ok_and(|exists| exists) {
            fs::write(file, "1").expect("root may set it");
        }
    }
}
