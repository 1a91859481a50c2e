//! The demo page in a real browser.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::scene::HOST;
use crate::tools::{Tool, require, script};
use crate::wait::{LIMIT, within};

/// The script that drives the browser: one line in, one line out.
pub struct Page {
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Page {
    /// Opens the page of [`HOST`] at this address; `None` when a tool is missing, which is recorded.
    pub fn open(https: SocketAddr) -> Option<Self> {
        let (python, browser) = (require(Tool::Python)?, require(Tool::Browser)?);
        let port = https.port();
        let mut command = script(&python, "python/page.py");
        command
            .arg(format!("https://{HOST}:{port}/"))
            .arg(browser)
            .arg(format!("MAP {HOST} 127.0.0.1"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the script starts");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Some(Self {
            _child: child,
            stdin,
            stdout,
        })
    }

    /// What the script says next. A browser takes its time to start, and the script has a limit of its own.
    pub async fn answer(&mut self) -> serde_json::Value {
        let line = tokio::time::timeout(4 * LIMIT, self.stdout.next_line())
            .await
            .expect("an answer of the browser");
        let line = line.expect("a line").expect("the script goes on");
        let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert!(
            answer["errors"].as_array().is_none_or(Vec::is_empty),
            "the page has errors: {answer}"
        );
        answer
    }

    /// Does one step and returns the text it led to.
    pub async fn step(&mut self, command: &str) -> String {
        within(
            "the script takes a command",
            self.stdin.write_all(format!("{command}\n").as_bytes()),
        )
        .await
        .expect("a pipe");
        self.answer().await["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}
