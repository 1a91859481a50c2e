//! What a client says in TLS beside its data, through the whole proxy: how its end reaches the backend, and what `openssl s_client` does on request.

use std::io::Write as _;
use std::process::Stdio;

use tempfile::NamedTempFile;
use tests::backend::Backend;
use tests::frame::{self, TEXT};
use tests::raw::{End, upgrade};
use tests::scene::{HOST, Scene};
use tests::tools::{Tool, require};
use tests::wait::within;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// How a client leaves, in bytes below TLS, or by TLS itself.
#[derive(Debug)]
enum Leaves {
    WithCloseNotify,
    /// After these bytes, which are no whole record.
    Cut(&'static [u8]),
    /// By a record that cannot be opened.
    Garbage,
}

#[tokio::test]
async fn an_end_reaches_the_backend_as_fin_and_broken_tls_as_a_reset() {
    // Most clients just close their connection. What they cut off is no whole record, and so nothing of it is passed on.
    let begun = &[23, 3, 3, 0, 50, 1, 2, 3];
    for (leaves, end, cause) in [
        (Leaves::WithCloseNotify, End::Fin, "client_eof"),
        (Leaves::Cut(&[]), End::Fin, "client_eof"),
        (Leaves::Cut(begun), End::Fin, "client_eof"),
        (Leaves::Garbage, End::Reset, "client_reset"),
    ] {
        let mut backend = Backend::played();
        let scene = Scene::in_front_of(backend.address).await;
        let (mut client, mut server) = scene.tunnel(&mut backend).await;
        let last = frame::masked(TEXT, b"last words");
        client.send(last).await.expect("an open tunnel");
        let heard = server.frame().await.expect("a frame");
        assert_eq!(heard.payload, b"last words");
        match leaves {
            Leaves::WithCloseNotify => client.finish().await.expect("an end"),
            Leaves::Cut(part) => {
                let tcp = client.below_tls();
                tcp.write_all(part).await.expect("an open connection");
                tcp.shutdown().await.expect("an open connection");
            }
            Leaves::Garbage => {
                let record = [&[23, 3, 3, 0, 20][..], &[7; 20]].concat();
                let tcp = client.below_tls();
                tcp.write_all(&record).await.expect("an open connection");
            }
        }
        assert_eq!(server.end().await, (Vec::new(), end), "{leaves:?}");
        drop((client, server));
        assert_eq!(scene.relays_ended(Some(cause)).await, 1, "{leaves:?}");
        scene.gateway.assert_quiet_log();
    }
}

/// `openssl s_client` with its commands: a letter and a line feed at the beginning of what it reads.
struct OpenSsl {
    child: Child,
    scene: Scene,
    backend: Backend,
    _root: NamedTempFile,
}

impl OpenSsl {
    async fn start(flag: &str) -> Option<Self> {
        let program = require(Tool::OpenSsl)?;
        let backend = Backend::played();
        let scene = Scene::in_front_of(backend.address).await;
        let mut root = NamedTempFile::new().expect("a temporary file");
        root.write_all(scene.authority.root_pem().as_bytes())
            .expect("the root certificate");
        let mut client = Command::new(program);
        client.args([
            "s_client",
            "-verify_return_error",
            "-servername",
            HOST,
            flag,
        ]);
        client.args(["-connect", &scene.gateway.https.to_string(), "-CAfile"]);
        client.arg(root.path());
        client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = client.kill_on_drop(true).spawn();
        Some(Self {
            child: child.expect("a program that starts"),
            scene,
            backend,
            _root: root,
        })
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(bytes.as_ref()).await.expect("it reads");
        stdin.flush().await.expect("it reads");
    }

    /// Waits for what it prints of its own.
    async fn says(&mut self, text: &str) {
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        through(stderr, text.as_bytes()).await;
    }

    async fn shows(&mut self, bytes: &[u8]) {
        let stdout = self.child.stdout.as_mut().expect("a pipe");
        through(stdout, bytes).await;
    }
}

/// Reads up to and with `end`.
async fn through(source: &mut (impl AsyncRead + Unpin), end: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let byte = within("what was waited for", source.read_u8()).await;
        read.push(byte.expect("a program that goes on"));
    }
}

#[tokio::test]
async fn openssl_changes_its_keys_in_the_middle_of_a_socket() {
    let Some(mut client) = OpenSsl::start("-tls1_3").await else {
        return;
    };
    client.write(upgrade(HOST, "/", "")).await;
    let mut server = client.backend.next_open().await;
    client.shows(b"HTTP/1.1 101").await;
    client.shows(b"\r\n\r\n").await;
    // K asks us to change ours too.
    for (round, command) in ["k\n", "K\n", "K\n", "k\n"].into_iter().enumerate() {
        client.write(command).await;
        client.says("KEYUPDATE\n").await;
        let said = format!("round {round}");
        client.write(frame::masked(TEXT, said.as_bytes())).await;
        let heard = server.frame().await.expect("a frame");
        assert_eq!(heard.payload, said.as_bytes());
        let answer = frame::unmasked(TEXT, said.as_bytes());
        server.send(&answer).await.expect("an open tunnel");
        client.shows(&answer).await;
    }
    client.scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn openssl_is_told_that_there_is_no_renegotiation() {
    let Some(mut client) = OpenSsl::start("-tls1_2").await else {
        return;
    };
    client.write(upgrade(HOST, "/", "")).await;
    let mut server = client.backend.next_open().await;
    client.shows(b"HTTP/1.1 101").await;
    client.shows(b"\r\n\r\n").await;
    client.write("R\n").await;
    client.says("RENEGOTIATING\n").await;
    // It takes the refusal as an end.
    client.says("no renegotiation").await;
    assert_ne!(server.end().await.1, End::CloseNotify);
    client.scene.gateway.assert_quiet_log();
    let (mut again, mut other) = client.scene.tunnel(&mut client.backend).await;
    again
        .send(frame::masked(TEXT, b"on"))
        .await
        .expect("an open tunnel");
    assert_eq!(other.frame().await.expect("a frame").payload, b"on");
}
