//! Requests made to be read in two ways, as bytes: smuggling, folding, odd line ends, tricks with Host and with the request line. A backend
//! that keeps every byte it gets and reads it strictly must see the judged request, whole and once, or nothing at all.
//! What is refused as a malformed handshake is in `malformed.rs`.

mod framing;
mod heads;

use std::time::Duration;

use tests::backend::SWITCHING;
use tests::manifests::Rule;
use tests::raw::upgrade;
use tests::recorder::{Record, Recorder};
use tests::scene::{HOST, SERVICE, Scene};
use tokio::time::timeout;

/// A request that only a reader who was tricked finds.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
const FORBIDDEN: &str = "HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nhalt";

/// Longest wait for an answer or an end; every attack here comes to one at once.
const WATCHED: Duration = Duration::from_secs(5);

/// What a backend may see of an attack.
#[derive(Debug, Clone)]
enum Verdict {
    /// Nothing; the connection ends.
    Refused,
    /// This request line and this body; the connection goes on.
    Passed(&'static str, String),
    /// The same, and what follows on the connection is not read (RFC 9112 §6.1).
    PassedLast(&'static str, String),
    /// At most a request without its end, which no backend can take for whole.
    Cut,
}

use Verdict::{Cut, Passed, PassedLast, Refused};

struct Attack {
    name: String,
    bytes: Vec<u8>,
    verdict: Verdict,
}

fn attack(name: impl Into<String>, bytes: impl Into<Vec<u8>>, verdict: Verdict) -> Attack {
    Attack {
        name: name.into(),
        bytes: bytes.into(),
        verdict,
    }
}

fn post(more: &str, body: &str) -> String {
    format!("POST /judged HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n{body}")
}

fn get(more: &str) -> String {
    format!("GET /judged HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

fn whole(body: &str) -> Verdict {
    Passed("POST /judged", body.to_owned())
}

/// A request that was begun and never ended: no backend can take it for whole.
fn is_cut(stray: &str) -> bool {
    stray.starts_with("chunks that end early") && !stray.contains("smuggled")
}

/// What is wrong with what the backend saw, if anything.
fn judge(attack: &Attack, record: &Record) -> Option<String> {
    if !record.strays.is_empty() || !record.tunnelled.is_empty() {
        return Some(format!("strays: {record:?}"));
    }
    let (Passed(line, body) | PassedLast(line, body)) = &attack.verdict else {
        return (!record.requests.is_empty()).then(|| format!("{record:?}"));
    };
    let mut seen = record.requests.iter();
    let right = seen.next().is_some_and(|first| {
        let framing = [
            "content-length",
            "transfer-encoding",
            "host",
            "x-real-ip",
            "x-forwarded-for",
        ];
        let trailers = first
            .trailers
            .iter()
            .all(|(name, _)| !framing.contains(&&**name));
        format!("{} {}", first.method, first.target) == *line
            && first.body == body.as_bytes()
            && first.all("host").len() == 1
            && first.all("upgrade").is_empty()
            && trailers
    });
    let after: Vec<_> = seen.map(|next| next.target.as_str()).collect();
    let expected: &[&str] = match attack.verdict {
        Passed(..) => &["/after"],
        PassedLast(..) | Refused | Cut => &[],
    };
    (!right || after != expected).then(|| format!("{record:?}"))
}

async fn play(scene: &Scene, attack: &Attack) {
    let mut client = scene.raw().await;
    // It may be refused while it is still on its way, and what is behind it may find the connection ended.
    let _ = client.send(&attack.bytes).await;
    let _ = timeout(WATCHED, client.response("GET")).await;
    let after = format!("GET /after HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let _ = client.send(after).await;
    let _ = timeout(WATCHED, client.end()).await;
}

async fn check(attacks: Vec<Attack>) {
    let backend = Recorder::start().await;
    backend.answer_with(OK);
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let cuts = attacks.iter().any(|attack| matches!(attack.verdict, Cut));
    let mut wrong = Vec::new();
    for attack in attacks {
        play(&scene, &attack).await;
        let mut record = backend.take();
        if cuts {
            // The backend may notice the end of one attack during the next.
            record.strays.retain(|stray| !is_cut(stray));
        }
        if let Some(why) = judge(&attack, &record) {
            wrong.push(format!("{}: {:?}: {why}", attack.name, attack.verdict));
        }
    }
    // What came late would be here.
    assert_eq!(backend.take().connections, 0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.gateway.assert_quiet_log();
}

#[tokio::test]
async fn no_length_lets_a_second_request_through() {
    check(framing::lengths()).await;
    check(framing::spellings()).await;
}

#[tokio::test]
async fn chunks_in_doubt_never_become_a_whole_request() {
    check(framing::chunks()).await;
}

#[tokio::test]
async fn broken_lines_reach_no_backend() {
    check(framing::lines()).await;
}

#[tokio::test]
async fn request_lines_and_hosts_in_doubt_reach_no_backend() {
    check(heads::targets()).await;
    check(heads::hosts()).await;
}

#[tokio::test]
async fn nothing_behind_an_upgrade_becomes_a_request() {
    check(heads::upgrades()).await;
}

#[tokio::test]
async fn what_is_behind_an_upgrade_is_dropped_or_tunnelled_but_never_judged() {
    let backend = Recorder::start().await;
    let rules = [Rule::to(SERVICE).forward()];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    let bytes = upgrade(HOST, "/judged", "") + SMUGGLED;
    for (answer, status) in [(SWITCHING, 101), (FORBIDDEN, 403)] {
        backend.answer_with(answer);
        let mut client = scene.raw().await;
        client.send(&bytes).await.expect("a request");
        let answered = client.response("GET").await.expect("an answer");
        assert_eq!(answered.status, status);
        if status == 101 {
            backend.tunnelled(SMUGGLED.len()).await;
        } else {
            assert_eq!(client.end().await.0, b"", "the connection ends");
        }
        let record = backend.take();
        assert_eq!(record.requests.len(), 1, "{record:?}");
        assert_eq!(record.strays, [""; 0]);
        let tunnelled = if status == 101 { SMUGGLED } else { "" };
        assert_eq!(record.tunnelled, tunnelled.as_bytes(), "once, and whole");
    }
}
