//! Backends whose answers can be read in two ways, as bytes: the client gets the one judged answer, a cut, or a 502; what is behind an
//! answer is never taken for the answer to another request. Answers whose length is in doubt are in `forward_limits.rs`.

use tests::manifests::Rule;
use tests::raw::upgrade;
use tests::recorder::Recorder;
use tests::scene::{HOST, SERVICE, Scene};

/// An answer that nobody asked for.
const EVIL: &str = "HTTP/1.1 200 OK\r\nX-Evil: yes\r\nContent-Length: 4\r\n\r\nevil";

/// The answer to the request after the hostile one.
const OWN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";

const HEAD: &str = "HTTP/1.1 200 OK\r\n";

#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// Status and body.
    Whole(u16, String),
    /// The answer was begun and ended before its end.
    Cut,
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

async fn got(scene: &Scene, request: &str) -> Got {
    let mut client = scene.raw().await;
    client.send(request).await.expect("a request");
    match client.response("GET").await {
        Ok(answer) => {
            let evil = answer.header("x-evil").is_some() || answer.text().contains("X-Evil");
            assert!(!evil, "an answer of nobody: {answer:?}");
            // Whatever the connection is good for, the next answer on it is that of the next request.
            if client.send(self::request("/own")).await.is_ok()
                && let Ok(next) = client.response("GET").await
            {
                assert!(next.header("x-evil").is_none(), "{next:?}");
            }
            Got::Whole(answer.status, answer.text())
        }
        Err(_) => Got::Cut,
    }
}

/// Each answer to an ordinary request and to an upgrade, then a good request over a connection of its own.
async fn check(answers: Vec<(&str, String, Got)>) {
    let backend = Recorder::start().await;
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let mut wrong = Vec::new();
    for (name, answer, expected) in answers {
        for (how, asked) in [
            ("forwarded", request("/judged")),
            ("an upgrade", upgrade(HOST, "/judged", "")),
        ] {
            backend.answer_with(&answer);
            let got = got(&scene, &asked).await;
            if got != expected {
                wrong.push(format!("{name}, {how}: {got:?} instead of {expected:?}"));
            }
            backend.answer_with(OWN);
            let next = scene.ask(&request("/own")).await;
            if next.text() != "own" {
                wrong.push(format!("{name}, {how}: the next request got {next:?}"));
            }
            let record = backend.take();
            if !record.strays.is_empty() || record.requests.len() < 2 {
                wrong.push(format!("{name}, {how}: the backend saw {record:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.gateway.assert_quiet_log();
}

fn bad() -> Got {
    let sentence = "The endpoint behind this route did not give a valid answer.\n";
    Got::Whole(502, sentence.to_owned())
}

#[tokio::test]
async fn what_is_behind_an_answer_is_nobodys_answer() {
    let whole = |status, body: &str| Got::Whole(status, body.to_owned());
    let none = |line: &str| format!("HTTP/1.1 {line}\r\nX-A: b\r\n\r\n{EVIL}");
    check(vec![
        (
            "behind a length",
            format!("{HEAD}Content-Length: 4\r\n\r\nwell{EVIL}"),
            whole(200, "well"),
        ),
        (
            "behind nothing",
            format!("{HEAD}Content-Length: 0\r\n\r\n{EVIL}"),
            whole(200, ""),
        ),
        (
            "behind chunks",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n{EVIL}"),
            whole(200, "well"),
        ),
        ("behind 204", none("204 No Content"), whole(204, "")),
        ("behind 304", none("304 Not Modified"), whole(304, "")),
        (
            "behind 204 with a length",
            format!("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n{EVIL}"),
            whole(204, ""),
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_502() {
    let with = |line: &str| format!("{HEAD}{line}\r\nContent-Length: 4\r\n\r\nwell");
    let line = |line: &str| format!("{line}\r\nConnection: close\r\n\r\nwell");
    let mut answers = Vec::new();
    for field in [
        "X-A: b\r\n c",
        " X-A: b",
        "X-A : b",
        "X A: b",
        ": b",
        "X-A",
        "X-A: b\0c",
        "X-A: b\rX-B: c",
        "X-A: \x01",
        "Content-Length : 9",
    ] {
        answers.push((field, with(field), bad()));
    }
    for status in [
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 -20 OK",
        "HTTP/2.0 200 OK",
        "HTTP/3 200",
        "ICY 200 OK",
        "200 OK",
        "SSH-2.0-x",
        "GET / HTTP/1.1",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 099 No",
    ] {
        answers.push((status, line(status), bad()));
    }
    let long = format!("X-A: {}\r\n", "a".repeat(1000));
    answers.push((
        "a head of 100 kB",
        format!("{HEAD}{}\r\nwell", long.repeat(100)),
        bad(),
    ));
    answers.push((
        "200 fields",
        format!("{HEAD}{}\r\nwell", "X-A: b\r\n".repeat(200)),
        bad(),
    ));
    answers.push((
        "a 101 that nobody asked for",
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n{EVIL}"
        ),
        bad(),
    ));
    check(answers).await;
}

#[tokio::test]
async fn chunks_of_an_answer_that_are_in_doubt_are_cut() {
    let chunks = |chunks: &str| {
        format!("{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
    };
    let mut answers = Vec::new();
    for body in [
        "4 x\r\nwell\r\n0\r\n\r\n",
        "-4\r\nwell\r\n0\r\n\r\n",
        "0x4\r\nwell\r\n0\r\n\r\n",
        "3\r\nwell\r\n0\r\n\r\n",
        "4\r\nwell0\r\n\r\n",
        "10000000000000004\r\nwell\r\n0\r\n\r\n",
        "4\nwell\n0\n\n",
        "4\r\nwell\r\n",
        "4\r\nwe",
    ] {
        answers.push((body, chunks(body), Got::Cut));
    }
    check(answers).await;
}
