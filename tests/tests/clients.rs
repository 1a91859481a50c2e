//! Real clients through wss: what each of them sees through the proxy is what it sees from the backend itself. The same list
//! runs over both ways, files and a cluster.

use std::io::Write as _;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tempfile::NamedTempFile;
use tests::client::{Dial, close_code, next, talk};
use tests::echo_process::EchoProcess;
use tests::manifests::Rule;
use tests::over_both_ways;
use tests::page::Page;
use tests::process::Process;
use tests::scene::{HOST, SERVICE};
use tests::tools::{Tool, require, run, script};
use tests::wait::{LIMIT, within};
use tests::way::Way;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

const MEBIBYTE: usize = 1 << 20;

over_both_ways! {
    a_rust_client_sees_the_echo_backend_itself
    a_python_client_sees_the_echo_backend_itself
    a_node_client_sees_the_echo_backend_itself
    permessage_deflate_passes_between_python_and_python
    permessage_deflate_passes_between_python_and_node
    permessage_deflate_passes_between_node_and_node
    permessage_deflate_passes_between_node_and_python
    the_first_message_tells_which_rule_and_endpoint_serve_the_socket
    the_demo_page_talks_through_the_proxy_and_shows_1001_at_ctrl_c
}

/// What a Rust client sees, as lines; the same steps as the scripts in `clients/`.
async fn rust_transcript(dial: &Dial) -> Vec<String> {
    let mut lines = Vec::new();
    let mut socket = dial.connect().await;
    let big: Vec<u8> = (0..MEBIBYTE)
        .map(|i| (i * 7 % 251).to_le_bytes()[0])
        .collect();
    let messages = [
        Message::text("text ✓"),
        Message::text(""),
        Message::binary(vec![]),
        Message::binary(big),
        Message::text("x"),
    ];
    for message in messages {
        socket.send(message.clone()).await.expect("an open socket");
        let back = next(&mut socket).await;
        lines.push(format!(
            "echo of {} bytes, text {}, same {}",
            back.len(),
            back.is_text(),
            back == message
        ));
    }
    for (part, kind, last) in [
        ("one ", Data::Text, false),
        ("two ", Data::Continue, false),
        ("three", Data::Continue, true),
    ] {
        let frame = Frame::message(part, OpCode::Data(kind), last);
        socket
            .send(Message::Frame(frame))
            .await
            .expect("an open socket");
    }
    lines.push(format!("echo of fragments {}", next(&mut socket).await));
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .expect("an open socket");
    let pong = within("a pong", socket.next()).await;
    lines.push(format!("pong {pong:?}"));

    for code in [1000, 4001] {
        let mut socket = dial.connect().await;
        let frame = CloseFrame {
            code: code.into(),
            reason: "from here".into(),
        };
        socket.close(Some(frame)).await.expect("an open socket");
        lines.push(format!(
            "closed from here {}",
            close_code(&mut socket).await
        ));
        let end = within("the end after the closes", socket.next()).await;
        lines.push(format!("then {}", end.is_none()));

        let mut socket = dial
            .clone()
            .path(&format!("/?quiet&close={code}"))
            .connect()
            .await;
        lines.push(format!(
            "closed from there {}",
            close_code(&mut socket).await
        ));
    }
    let offer = dial.clone().subprotocol("chat.v1").subprotocol("chat.v2");
    let (_, response) = offer
        .try_connect()
        .await
        .expect("a handshake with subprotocols");
    lines.push(format!(
        "subprotocol {:?}",
        response.headers().get("sec-websocket-protocol")
    ));
    lines
}

async fn echo(way: Way) -> EchoProcess {
    let flags = ["--subprotocol", "chat.v2"];
    EchoProcess::start_on(way.backend_address(), "echo", &flags).await
}

fn rule() -> Rule {
    Rule::to(SERVICE).named("talk")
}

/// An echo backend of another language; `None` when its tool is missing.
async fn foreign_backend(way: Way, tool: Tool) -> Option<(Process, SocketAddr)> {
    let name = if matches!(tool, Tool::Node) {
        "node/server.js"
    } else {
        "python/server.py"
    };
    let mut command = script(&require(tool)?, name);
    command.arg(way.backend_address().to_string());
    let process = Process::spawn(name, command);
    let line = process.stdout.with("listening on ").await;
    let address = line
        .rsplit(' ')
        .next()
        .and_then(|address| address.parse().ok());
    Some((process, address.expect("an address at the end of the line")))
}

/// Runs the client of a tool directly at `backend` and through the proxy, and compares what it printed.
async fn compare_script(way: Way, tool: Tool, backend: SocketAddr) -> Option<Vec<String>> {
    let program = require(tool)?;
    let served = way.serve(rule(), backend).await?;
    let mut root = NamedTempFile::new().expect("a temporary file");
    root.write_all(served.authority().root_pem().as_bytes())
        .expect("the root certificate");
    let name = if matches!(tool, Tool::Node) {
        "node/client.js"
    } else {
        "python/client.py"
    };

    let mut direct = script(&program, name);
    direct.args([format!("ws://{HOST}/"), backend.to_string()]);
    let mut proxied = script(&program, name);
    proxied.args([format!("wss://{HOST}/"), served.https().to_string()]);
    if matches!(tool, Tool::Python) {
        proxied.arg("--ca");
    }
    proxied.arg(root.path());

    let direct = run("the client, directly", direct).await;
    let proxied = run("the client, through the proxy", proxied).await;
    assert!(
        direct.last().is_some_and(|line| line.contains("done")),
        "the client did not finish: {direct:?}"
    );
    assert_eq!(direct, proxied, "the proxy can be seen");
    Some(proxied)
}

fn assert_deflate_was_agreed(transcript: &[String]) {
    let agreed = transcript
        .iter()
        .any(|line| line.contains("open") && line.contains("\"permessage-deflate"));
    assert!(agreed, "no socket had permessage-deflate: {transcript:?}");
}

async fn a_rust_client_sees_the_echo_backend_itself(way: Way) {
    let echo = echo(way).await;
    let Some(served) = way.serve(rule(), echo.address).await else {
        return;
    };
    let direct = rust_transcript(&Dial::ws(echo.address, HOST)).await;
    assert_eq!(direct, rust_transcript(&served.client()).await);
    assert!(
        !direct.iter().any(|line| line.contains("same false")),
        "{direct:?}"
    );
}

async fn a_python_client_sees_the_echo_backend_itself(way: Way) {
    let echo = echo(way).await;
    compare_script(way, Tool::Python, echo.address).await;
}

async fn a_node_client_sees_the_echo_backend_itself(way: Way) {
    let echo = echo(way).await;
    compare_script(way, Tool::Node, echo.address).await;
}

async fn permessage_deflate_passes_between_python_and_python(way: Way) {
    let Some((_backend, address)) = foreign_backend(way, Tool::Python).await else {
        return;
    };
    let Some(transcript) = compare_script(way, Tool::Python, address).await else {
        return;
    };
    assert_deflate_was_agreed(&transcript);
}

async fn permessage_deflate_passes_between_python_and_node(way: Way) {
    let Some((_backend, address)) = foreign_backend(way, Tool::Node).await else {
        return;
    };
    let Some(transcript) = compare_script(way, Tool::Python, address).await else {
        return;
    };
    assert_deflate_was_agreed(&transcript);
}

async fn permessage_deflate_passes_between_node_and_node(way: Way) {
    let Some((_backend, address)) = foreign_backend(way, Tool::Node).await else {
        return;
    };
    let Some(transcript) = compare_script(way, Tool::Node, address).await else {
        return;
    };
    assert_deflate_was_agreed(&transcript);
}

async fn permessage_deflate_passes_between_node_and_python(way: Way) {
    let Some((_backend, address)) = foreign_backend(way, Tool::Python).await else {
        return;
    };
    let Some(transcript) = compare_script(way, Tool::Node, address).await else {
        return;
    };
    assert_deflate_was_agreed(&transcript);
}

async fn the_first_message_tells_which_rule_and_endpoint_serve_the_socket(way: Way) {
    let echo = echo(way).await;
    let Some(served) = way.serve(rule(), echo.address).await else {
        return;
    };
    let mut socket = served.client().path("/").connect().await;
    let hello = next(&mut socket).await.into_text().expect("a text message");
    let hello: serde_json::Value = serde_json::from_str(&hello).expect("JSON");
    assert_eq!(hello["rule"], format!("{}/chat/talk", served.namespace()));
    assert_eq!(hello["address"], echo.address.to_string());
    talk(&mut socket, "and the echo follows").await;
}

async fn the_demo_page_talks_through_the_proxy_and_shows_1001_at_ctrl_c(way: Way) {
    let flags = ["--ignore-sigterm"];
    let echo = EchoProcess::start_on(way.backend_address(), "echo", &flags).await;
    let rule = Rule::to(SERVICE).named("page").forward();
    let Some(mut served) = way.serve(rule, echo.address).await else {
        return;
    };
    let Some(mut page) = Page::open(served.https()) else {
        return;
    };
    assert_eq!(page.answer().await["title"], "ws-ingress demo");

    page.step("wait state open").await;
    let namespace = served.namespace().to_owned();
    let rule = page.step(&format!("wait rule {namespace}")).await;
    assert_eq!(rule, format!("{namespace}/chat/page"));
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

    served.interrupt();
    let close = page.step("wait close 1001").await;
    assert!(close.starts_with("1001"), "{close}");
    page.step("wait state next try").await;
    assert_eq!(
        served.drained(LIMIT).await,
        "drained sockets=1 closed=1 cut=0"
    );
}
