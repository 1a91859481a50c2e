//! The demo page in a real browser, served through the proxy by the echo backend.

use std::process::Stdio;

use rustix::process::Signal;
use tests::echo_process::EchoProcess;
use tests::gateway::Settings;
use tests::manifests::Rule;
use tests::scene::{HOST, SERVICE, Scene};
use tests::tools::{Tool, require, script};
use tests::wait::{LIMIT, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// The script that drives the browser: one line in, one line out.
struct Page {
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Page {
    fn open(scene: &Scene) -> Option<Self> {
        let (python, browser) = (require(Tool::Python)?, require(Tool::Browser)?);
        let port = scene.gateway.https.port();
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
    async fn answer(&mut self) -> serde_json::Value {
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
    async fn step(&mut self, command: &str) -> String {
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

#[tokio::test]
async fn the_demo_page_talks_through_the_proxy_and_shows_1001_at_ctrl_c() {
    let echo = EchoProcess::start_with("echo", &["--ignore-sigterm"]).await;
    let rules = [Rule::to(SERVICE).named("page").forward()];
    let mut scene = Scene::start(&rules, &[(SERVICE, &[echo.address])], &Settings::default()).await;
    let Some(mut page) = Page::open(&scene) else {
        return;
    };
    assert_eq!(page.answer().await["title"], "ws-ingress demo");

    page.step("wait state open").await;
    assert_eq!(page.step("wait rule default").await, "default/chat/page");
    assert_eq!(
        page.step("read endpoint").await,
        format!("echo at {}", echo.address)
    );
    page.step("wait round-trip ms").await;

    // Random, so that nothing but this message can be found.
    let text = tempfile::Builder::new()
        .prefix("hello-")
        .rand_bytes(12)
        .tempfile()
        .expect("a random name");
    let text = text
        .path()
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    page.step(&format!("say {text}")).await;
    echo.log()
        .with(&format!("echo received text: {text}"))
        .await;

    scene.gateway.signal(Signal::INT);
    let close = page.step("wait close 1001").await;
    assert!(close.starts_with("1001"), "{close}");
    page.step("wait state next try").await;
    assert_eq!(
        scene.gateway.drained(LIMIT).await,
        "drained sockets=1 closed=1 cut=0"
    );
}
