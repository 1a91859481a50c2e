//! `guard PROGRAM ARGUMENT...` becomes PROGRAM, which then ends with the thread that started it, however that ended.
//!
//! The programs of Kubernetes have no flag for this, and a test that is killed ends nothing by itself.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::{Signal, set_parent_process_death_signal};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let program: OsString = arguments.next().context("which program?")?;
    // The kernel keeps this across exec.
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot follow the parent process")?;
    // Only returns when it failed.
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot become {}", program.display()))
}
