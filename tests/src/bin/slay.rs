//! `slay --pod UID --program NAME`: sends a signal to a program of a pod, from a pod that sees the processes of its node
//! (`hostPID`). There is no shell in the images, and from inside a container its first process cannot be killed.

use std::fs;

use anyhow::{Context as _, ensure};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};

#[derive(Parser)]
struct Args {
    /// metadata.uid of the pod.
    #[arg(long)]
    pod: String,

    /// The program, as its image starts it: `/ws-ingress-dataplane`.
    #[arg(long)]
    program: String,

    /// Stop it, as a program that hangs; without this it is killed.
    #[arg(long)]
    stop: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let signal = if args.stop {
        Signal::STOP
    } else {
        Signal::KILL
    };
    let mut count = 0;
    for process in fs::read_dir("/proc").context("/proc cannot be read")? {
        let name = process?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ended meanwhile is not looked for.
        if belongs(pid, &args.pod) && runs(pid, &args.program) {
            let pid = Pid::from_raw(pid).context("0 is no process")?;
            kill_process(pid, signal).with_context(|| format!("{pid:?}"))?;
            count += 1;
        }
    }
    ensure!(count == 1, "{count} processes of that pod run that program");
    Ok(())
}

/// The names of a pod's cgroups hold its uid; where systemd makes them, with other hyphens.
fn belongs(pid: i32, pod: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.contains(pod) || groups.contains(&pod.replace('-', "_"))
}

fn runs(pid: i32, program: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).next() == Some(program.as_bytes())
}
