//! Whose CPU time and whose memory: processes with their descendants, and everybody else.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::process::proportional_bytes;

/// The two CPUs of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Of the client and the backend.
    pub load: usize,
    /// Of the proxy that is measured, alone.
    pub proxy: usize,
}

impl Cpus {
    /// The first two that this process may use.
    pub fn pick() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (load, proxy) = all.next().zip(all.next()).context(
            "the bench needs two CPUs: one for the proxy, one for the client and the backend",
        )?;
        Ok(Self { load, proxy })
    }
}

/// Binds the calling thread to one CPU; threads and processes that it starts later inherit that.
pub fn bind_to(cpu: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot bind to CPU {cpu}"))
}

/// Raises the limit of open files as far as it goes and returns it; children inherit it.
pub fn raise_open_files() -> anyhow::Result<u64> {
    let most = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")?;
    Ok(most.unwrap_or(u64::MAX))
}

/// CPU time that a process has used so far, threads that ended included, from its own clock (`clock_getcpuclockid`): exact to
/// nanoseconds, where the ticks in `/proc` are 10 ms.
pub fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()))
        .with_context(|| format!("process {process} has no clock"))?;
    Ok(clock.now()?.into())
}

/// CPU time of all these processes.
pub fn tree_cpu_time(tree: &[u32]) -> anyhow::Result<Duration> {
    tree.iter().map(|process| cpu_time(*process)).sum()
}

/// PSS of a process and of all its descendants, in bytes.
pub fn tree_memory(process: u32) -> anyhow::Result<u64> {
    Ok(tree(process)?.into_iter().map(proportional_bytes).sum())
}

/// A process and its descendants.
pub fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in processes()? {
        // A process may end between the two looks.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(process) = found.get(at) {
        found.extend(children.remove(process).unwrap_or_default());
        at += 1;
    }
    Ok(found)
}

/// Every process there is.
fn processes() -> anyhow::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// The parent in a line of `/proc/PID/stat`: the second field after the name, which may hold spaces and brackets itself.
fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

/// CPU time of every process on the machine, those of the kernel included. `/proc/stat` would say it by CPU, but looks only once a
/// tick, and what keeps step with ticks then seems to be busy always or never.
pub fn all_cpu_times() -> anyhow::Result<BTreeMap<u32, Duration>> {
    let times = processes()?.filter_map(|process| Some((process, cpu_time(process).ok()?)));
    Ok(times.collect())
}

/// By how much these processes' times grew between two looks, those in `except` left out. What began and ended in between is
/// in neither look.
pub fn growth(
    before: &BTreeMap<u32, Duration>,
    after: &BTreeMap<u32, Duration>,
    except: &[u32],
) -> Duration {
    let others = after
        .iter()
        .filter(|(process, _)| !except.contains(process));
    let grown = others.map(|(process, time)| {
        let before = before.get(process).copied().unwrap_or_default();
        // An id that was given away anew has less than before.
        time.checked_sub(before).unwrap_or(*time)
    });
    grown.sum()
}

/// Time that the host took from these CPUs since the start.
pub fn stolen_time(cpus: Cpus) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks = [cpus.load, cpus.proxy].map(|cpu| stolen_ticks(&stat, cpu));
    let ticks = ticks.into_iter().sum::<Option<u64>>();
    let ticks = ticks.context("/proc/stat lacks a CPU")?;
    let per_second = rustix::param::clock_ticks_per_second();
    ensure!(per_second > 0, "no ticks");
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// The eighth number of a CPU's line: user, nice, system, idle, iowait, irq, softirq, steal.
fn stolen_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    line.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_hides_no_parent() {
        let stat = "4711 (nginx: (worker) x) S 4242 4711 4711 0 -1 4194560 104 0";
        assert_eq!(parent(stat), Some(4242));
        assert_eq!(parent(""), None);
    }

    #[test]
    fn stolen_time_is_found_by_the_cpu() {
        let stat = "cpu  9 9 9 9 9 9 9 9\ncpu1 1 2 3 1000 2000 4 5 6 7 8\ncpu10 1 1 1 1 1 1 1 1\n";
        assert_eq!(stolen_ticks(stat, 1), Some(6));
        assert_eq!(stolen_ticks(stat, 2), None);
    }

    #[test]
    fn what_others_used_is_what_they_grew_by() {
        let millis = |times: &[(u32, u64)]| -> BTreeMap<u32, Duration> {
            let times = times.iter();
            times
                .map(|(process, time)| (*process, Duration::from_millis(*time)))
                .collect()
        };
        let before = millis(&[(1, 10), (2, 500), (3, 7), (4, 90), (5, 8)]);
        // 1 grew by 5, 2 is not asked for, 3 ended, 4 is another process now, 6 is new.
        let after = millis(&[(1, 15), (2, 900), (4, 30), (5, 8), (6, 100)]);
        assert_eq!(growth(&before, &after, &[2]), Duration::from_millis(135));
    }

    #[test]
    fn a_process_counts_itself() {
        let own = std::process::id();
        let processes = tree(own).unwrap();
        let before = tree_cpu_time(&processes).unwrap();
        let work: u64 = (0..3_000_000_u64).map(std::hint::black_box).sum();
        assert!(work > 0);
        assert!(tree_cpu_time(&processes).unwrap() > before);
        assert!(all_cpu_times().unwrap().contains_key(&own));
        assert!(tree_memory(own).unwrap() > 100_000);
    }
}
