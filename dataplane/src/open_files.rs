//! The limit of open files: how many the process may have, and that it takes all that it may.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the most that the system allows this process (`ulimit -Hn`). systemd and containerd 2 begin every process with 1,024, which
/// is meant for programs with select(2), and a pod cannot ask for more. Once, before [`Limits`](crate::Limits) are made from it.
pub fn raise_open_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, limit = current, "cannot raise the limit of open files");
    }
}

pub(crate) fn open_file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
