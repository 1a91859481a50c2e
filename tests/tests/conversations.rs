//! One socket of ten thousand random messages through the TLS and WebSocket clients that people use: each echo is what was sent, in order, and
//! the log stays quiet.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use tempfile::NamedTempFile;
use tests::client::tls;
use tests::conversation::{MESSAGES, Mirror, converse, seed};
use tests::scene::{HOST, Scene};
use tests::tools::{Tool, require, run, script};
use tokio::process::Command;
use tokio::time::timeout;

/// Far more than any of these takes on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

struct Stage {
    mirror: Mirror,
    scene: Scene,
    root: NamedTempFile,
    seed: u32,
}

impl Stage {
    async fn new() -> Self {
        let mirror = Mirror::start().expect("a listener");
        let scene = Scene::in_front_of(mirror.address).await;
        let mut root = NamedTempFile::new().expect("a temporary file");
        root.write_all(scene.authority.root_pem().as_bytes())
            .expect("the root certificate");
        Self {
            mirror,
            scene,
            root,
            seed: seed(),
        }
    }

    fn url(&self) -> String {
        format!("wss://{HOST}:{}/", self.scene.gateway.https.port())
    }

    fn address(&self) -> String {
        self.scene.gateway.https.to_string()
    }

    /// What every script is told: the URL, where it leads, what to trust, the seed, and how many messages.
    async fn run(self, mut client: Command) {
        client
            .args([self.url(), self.address()])
            .arg(self.root.path());
        client.args([self.seed.to_string(), MESSAGES.to_string()]);
        let lines = run("the client", client).await;
        let done = format!("done: {MESSAGES} messages");
        assert!(
            lines.last().is_some_and(|line| line.starts_with(&done)),
            "the client did not finish: {lines:#?}"
        );
        self.end().await;
    }

    async fn end(self) {
        assert_eq!(self.mirror.messages().await, MESSAGES);
        assert_eq!(self.scene.relays_ended(Some("closed")).await, 1);
        self.scene.gateway.assert_quiet_log();
    }
}

#[tokio::test]
async fn ten_thousand_messages_through_rustls() {
    let stage = Stage::new().await;
    let (https, root) = (stage.scene.gateway.https, stage.scene.authority.root());
    let stream = tls(https, HOST, root).await.expect("a TLS connection");
    let (source, sink) = tokio::io::split(stream);
    let conversation = converse(source, sink, HOST, stage.seed);
    timeout(LIMIT, conversation).await.expect("an end in time");
    stage.end().await;
}

/// `openssl s_client` as a pipe, with what else it is told.
async fn through_openssl(flags: &[&str]) {
    let Some(openssl) = require(Tool::OpenSsl) else {
        return;
    };
    let stage = Stage::new().await;
    let mut client = Command::new(openssl);
    client.args([
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-servername",
        HOST,
    ]);
    client
        .args(["-connect", &stage.address(), "-CAfile"])
        .arg(stage.root.path());
    client.args(flags);
    client.stdin(Stdio::piped()).stdout(Stdio::piped());
    client.kill_on_drop(true);
    let mut client = client.spawn().expect("a program that starts");
    let (sink, source) = (client.stdin.take(), client.stdout.take());
    let (sink, source) = (sink.expect("a pipe"), source.expect("a pipe"));
    let conversation = converse(source, sink, HOST, stage.seed);
    timeout(LIMIT, conversation).await.expect("an end in time");
    stage.end().await;
}

#[tokio::test]
async fn ten_thousand_messages_through_openssl() {
    through_openssl(&["-tls1_3"]).await;
}

#[tokio::test]
async fn ten_thousand_messages_through_openssl_with_tls12_and_small_records() {
    through_openssl(&["-tls1_2", "-max_send_frag", "512"]).await;
}

#[tokio::test]
async fn ten_thousand_messages_through_python_websockets() {
    let Some(python) = require(Tool::Python) else {
        return;
    };
    let client = script(&python, "python/conversation.py");
    Stage::new().await.run(client).await;
}

#[tokio::test]
async fn ten_thousand_messages_through_node_ws() {
    let Some(node) = require(Tool::Node) else {
        return;
    };
    let client = script(&node, "node/conversation.js");
    Stage::new().await.run(client).await;
}

#[tokio::test]
async fn ten_thousand_messages_through_go_coder_websocket() {
    let Some(client) = require(Tool::Go) else {
        return;
    };
    Stage::new().await.run(Command::new(client)).await;
}

#[tokio::test]
async fn ten_thousand_messages_through_the_websocket_of_java() {
    let Some(java) = require(Tool::Java) else {
        return;
    };
    // Where the name leads; this client takes no address beside it.
    let mut hosts = NamedTempFile::new().expect("a temporary file");
    writeln!(hosts, "127.0.0.1 {HOST}").expect("the hosts file");
    let mut command = Command::new(java);
    let file = hosts.path().display();
    command.arg(format!("-Djdk.net.hosts.file={file}"));
    command.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/clients/java/Conversation.java"
    ));
    Stage::new().await.run(command).await;
}
