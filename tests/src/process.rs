//! A child process whose lines are kept: the gateway, the echo backend, a client in another language.
//!
//! The child is killed by its pid when its owner goes out of scope, also when the test panics; then its last lines are
//! shown, because they usually say why.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wait;

/// Lines shown of a child when its test fails.
const SHOWN_LINES: usize = 60;

/// What one stream of a child has printed so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Printed>>);

#[derive(Default)]
struct Printed {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.printed().lines.clone()
    }

    /// The first line that contains `part`, if it was printed already.
    pub fn find(&self, part: &str) -> Option<String> {
        self.printed()
            .lines
            .iter()
            .find(|line| line.contains(part))
            .cloned()
    }

    /// How many lines contain `part` so far.
    pub fn count(&self, part: &str) -> usize {
        let printed = self.printed();
        let lines = printed.lines.iter();
        lines.filter(|line| line.contains(part)).count()
    }

    /// The first line that contains `part`, waited for.
    pub async fn with(&self, part: &str) -> String {
        let what = format!("a line with {part:?}");
        wait::until(&what, async || {
            let ended = self.printed().ended;
            let found = self.find(part);
            assert!(
                found.is_some() || !ended,
                "the process ended without {what}"
            );
            found
        })
        .await
    }

    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
    readers: JoinSet<()>,
}

impl Process {
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {name}: {error}"),
        };
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let mut readers = JoinSet::new();
        readers.spawn(keep(
            child.stdout.take().expect("stdout is piped"),
            stdout.clone(),
        ));
        readers.spawn(keep(
            child.stderr.take().expect("stderr is piped"),
            stderr.clone(),
        ));
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
            readers,
        }
    }

    /// The id that it has; `guard` becomes the program that it starts.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the child still runs")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().cast_signed()).expect("an id that is not 0");
        kill_process(pid, signal).expect("a child takes signals");
    }

    /// Waits for the end, and for the last line printed before it.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            panic!("{} did not end within {limit:?}", self.name)
        };
        while self.readers.join_next().await.is_some() {}
        status.expect("a child can be waited for")
    }

    /// Whether it has not ended by itself.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (stream, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let lines = lines.all();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                eprintln!("{} {stream}| {line}", self.name);
            }
        }
    }
}

async fn keep(stream: impl AsyncRead + Unpin, lines: Lines) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    // Bytes, not `lines()`: a child that prints something that is not UTF-8 must not end its own log.
    while stream
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|read| read > 0)
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        lines.printed().lines.push(text);
        line.clear();
    }
    lines.printed().ended = true;
}

/// The memory of a process in bytes, pages that it shares counted by its share (PSS).
pub fn proportional_bytes(process: u32) -> u64 {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = std::fs::read_to_string(&path).expect("the memory of a child");
    let kilobytes = text.lines().find_map(|line| {
        let value = line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?;
        value.parse::<u64>().ok()
    });
    kilobytes.expect("a line Pss") * 1024
}

/// The most memory that a process has had resident so far (`VmHWM`), in bytes.
pub fn peak_bytes(process: u32) -> u64 {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).expect("the state of a child");
    let kilobytes = text.lines().find_map(|line| {
        let value = line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?;
        value.parse::<u64>().ok()
    });
    kilobytes.expect("a line VmHWM") * 1024
}

/// What a command that ended by itself came to.
#[derive(Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end, with `input` on stdin; `what` says what took longer than `limit`.
pub async fn run_to_end(what: &str, mut command: Command, input: &str, limit: Duration) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot start {what}: {error}"),
    };
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let write = async {
        // A program that refuses its flags ends without reading; its message is in the output.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let run = async { tokio::join!(write, child.wait_with_output()).1 };
    let Ok(output) = timeout(limit, run).await else {
        panic!("{what} did not end within {limit:?}")
    };
    let output = output.expect("a child can be waited for");
    Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Cargo's folder of this profile: tests lie in its `deps`, programs in it.
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.parent().and_then(|deps| deps.parent());
    folder
        .expect("tests lie in target/<profile>/deps")
        .to_path_buf()
}

/// Cargo's target folder.
pub fn target_folder() -> PathBuf {
    build_folder()
        .parent()
        .expect("a profile lies in the target folder")
        .to_path_buf()
}

/// A command that runs `program` and ends with this process, however that ends. The kernel watches the thread that
/// starts it: start it from one that lives long enough.
pub fn guarded(program: &Path) -> Command {
    let mut command = Command::new(build_folder().join("guard"));
    command.arg(program);
    command
}

/// A program that was built beside the tests, or the one that the environment variable names.
pub fn program(name: &str, variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| build_folder().join(name), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: `make test` builds it (or set {variable})",
        path.display()
    );
    path
}
