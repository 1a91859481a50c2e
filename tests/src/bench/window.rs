//! One measurement: a load runs, warms up, and is then watched for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::account::{Cpus, all_cpu_times, cpu_time, growth, stolen_time, tree, tree_cpu_time};
use super::statistics::number;

/// How much a load has done; shared by its tasks.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The tasks of a load. They run until they are dropped; one that ends has failed.
pub type Tasks = JoinSet<anyhow::Result<()>>;

/// Who is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub proxy: u32,
    pub backend: u32,
    pub cpus: Cpus,
}

/// What a window showed. Times are seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    pub length: f64,
    pub proxy: f64,
    pub client: f64,
    pub backend: f64,
    /// CPU time of all other processes, on whatever CPU, and what the host took.
    pub others: f64,
    pub done: u64,
}

impl Window {
    /// CPU time of the proxy for one, in seconds.
    pub fn per_one(&self) -> anyhow::Result<f64> {
        anyhow::ensure!(self.done > 0, "nothing was done");
        Ok(self.proxy / number(self.done))
    }

    /// How much of one CPU the client used, 0 to 1.
    pub fn client_share(&self) -> f64 {
        self.client / self.length
    }

    /// How much of its CPU the proxy used.
    pub fn proxy_share(&self) -> f64 {
        self.proxy / self.length
    }

    /// How much of their CPU the client and the backend used together.
    pub fn load_share(&self) -> f64 {
        (self.client + self.backend) / self.length
    }

    /// How much of one CPU went to processes that have no part in this.
    pub fn foreign_share(&self) -> f64 {
        self.others / self.length
    }
}

/// The state of all accounts at one moment.
struct Reading {
    at: Instant,
    proxy: Duration,
    client: Duration,
    backend: Duration,
    stolen: Duration,
    all: BTreeMap<u32, Duration>,
    /// Who has a part in this.
    ours: Vec<u32>,
    done: u64,
}

impl Watched {
    fn read(&self, counter: &Counter) -> anyhow::Result<Reading> {
        let (mut ours, client) = (tree(self.proxy)?, std::process::id());
        let reading = Reading {
            at: Instant::now(),
            done: counter.now(),
            proxy: tree_cpu_time(&ours)?,
            client: cpu_time(client)?,
            backend: cpu_time(self.backend)?,
            stolen: stolen_time(self.cpus)?,
            all: all_cpu_times()?,
            ours: Vec::new(),
        };
        ours.extend([client, self.backend]);
        Ok(Reading { ours, ..reading })
    }

    /// Watches for so long.
    pub async fn watch(
        &self,
        tasks: &mut Tasks,
        counter: &Counter,
        length: Duration,
    ) -> anyhow::Result<Window> {
        let start = self.read(counter)?;
        run_for(tasks, length).await?;
        let end = self.read(counter)?;
        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        Ok(Window {
            length: (end.at - start.at).as_secs_f64(),
            proxy: seconds(start.proxy, end.proxy),
            client: seconds(start.client, end.client),
            backend: seconds(start.backend, end.backend),
            others: growth(&start.all, &end.all, &end.ours).as_secs_f64()
                + seconds(start.stolen, end.stolen),
            done: end.done - start.done,
        })
    }
}

/// Lets a load run for so long; an error when one of its tasks ends.
pub async fn run_for(tasks: &mut Tasks, length: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = sleep(length) => Ok(()),
        Some(ended) = tasks.join_next() => {
            ended.context("a task of the load panicked")??;
            anyhow::bail!("a task of the load ended by itself")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        length: 2.0,
        proxy: 1.0,
        client: 1.2,
        backend: 0.6,
        others: 0.1,
        done: 100_000,
    };

    #[track_caller]
    fn check(actual: f64, expected: f64) {
        assert!(
            (actual - expected).abs() < 1e-9,
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn shares_are_of_the_time_that_passed() {
        check(WINDOW.per_one().unwrap() * 1e6, 10.0);
        check(WINDOW.client_share(), 0.6);
        check(WINDOW.proxy_share(), 0.5);
        check(WINDOW.load_share(), 0.9);
        check(WINDOW.foreign_share(), 0.05);
    }

    #[test]
    fn nothing_done_is_no_figure() {
        assert!(Window { done: 0, ..WINDOW }.per_one().is_err());
    }
}
