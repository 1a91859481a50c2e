//! What an action came to, aspect by aspect, and how two outcomes differ.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::raw::{Connection, Response};
use tests::recorder::{Record, Recorder};
use tokio::time::timeout;

use crate::sides::Side;

/// The mark of an answer that is the backend's own.
pub(crate) const MARK: &str = "x-from-backend";

/// What each hop says for itself (RFC 9110 §6.6.1, §7.6.1, §10.2.4; RFC 9112 §6.1), and by what name it knows the request.
const OF_THE_HOP: [&str; 6] = [
    "connection",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
    "x-request-id",
];

/// What ws-ingress tells a backend beside the recipe's headers; nginx would need a line each.
const ALWAYS_ADDED: [&str; 3] = ["x-forwarded-host", "x-forwarded-proto", "x-ws-ingress-rule"];

/// Aspects by name, such as `status`, `seen`, `answer x-why`.
pub(crate) type Outcome = BTreeMap<String, String>;

/// One thing that a client does.
pub(crate) struct Exchange {
    pub(crate) name: &'static str,
    /// Sent in one piece.
    pub(crate) request: Vec<u8>,
    /// What the backend answers to each request.
    pub(crate) answer: Vec<u8>,
    /// How many answers the client reads.
    pub(crate) answers: usize,
}

impl Exchange {
    /// Plays it against one side.
    pub(crate) async fn play(&self, side: &Side, backend: &Recorder) -> Outcome {
        backend.answer_with(&self.answer);
        backend.take();
        let mut client = side.connect().await;
        // It may be refused while it is still on its way.
        let _ = client.send(&self.request).await;
        let mut outcome = Outcome::new();
        let method = if self.request.starts_with(b"HEAD ") {
            "HEAD"
        } else {
            "GET"
        };
        for index in 0..self.answers {
            let prefix = if index == 0 { "" } else { "next " };
            note_answer(
                &mut outcome,
                prefix,
                final_answer(&mut client, method).await,
            );
        }
        // nginx puts the port of its own in.
        let port = format!(":{}", side.https.port());
        if let Some(location) = outcome.get_mut("answer location") {
            *location = location.replace(&port, "");
        }
        if self.request.windows(2).any(|bytes| bytes == b"\x81\x85") {
            backend.tunnelled(11).await;
        }
        note_record(&mut outcome, &backend.take());
        outcome
    }
}

/// How long an answer may take; none is an outcome too.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// The next answer that is no interim one (RFC 9110 §15.2): whether a 100 is still needed is the proxy's to judge.
async fn final_answer(client: &mut Connection, method: &str) -> Result<Response, &'static str> {
    loop {
        let Ok(answer) = timeout(ANSWER_LIMIT, client.response(method)).await else {
            return Err("no answer");
        };
        match answer {
            Ok(answer) if answer.status < 200 && answer.status != 101 => {}
            Ok(answer) => return Ok(answer),
            Err(_) => return Err("closed"),
        }
    }
}

fn note_answer(outcome: &mut Outcome, prefix: &str, response: Result<Response, &str>) {
    let mut note = |aspect: &str, value: String| {
        outcome.insert(format!("{prefix}{aspect}"), value);
    };
    let response = match response {
        Ok(response) => response,
        Err(end) => return note("status", end.to_owned()),
    };
    note("status", response.status.to_string());
    // An answer of the proxy's own has its own words.
    if response.status == 101 || response.header(MARK).is_some() {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &response.headers {
            let name = name.to_ascii_lowercase();
            let value = value.to_ascii_lowercase();
            fields.entry(name).or_default().push(value);
        }
        for (name, values) in fields {
            let switches = response.status == 101 && name == "connection";
            if switches || !OF_THE_HOP.contains(&&*name) {
                note(&format!("answer {name}"), values.join(" & "));
            }
        }
        note("answer body", bytes_as_text(&response.body));
    }
}

fn note_record(outcome: &mut Outcome, record: &Record) {
    let lines = record
        .requests
        .iter()
        .map(|seen| format!("{} {}", seen.method, shortened(&seen.target)));
    let mut lines: Vec<_> = lines.collect();
    lines.extend(record.strays.iter().map(|stray| format!("STRAY {stray}")));
    if lines.is_empty() {
        lines.push("nothing".into());
    }
    outcome.insert("seen".into(), lines.join(" & "));
    if let Some(seen) = record.requests.first() {
        for (name, _) in &seen.headers {
            let mut value = seen.all(name).join(" & ");
            // Their tokens have no case (RFC 9110 §7.6.1, §7.8).
            if ["connection", "upgrade"].contains(&name.as_str()) {
                value.make_ascii_lowercase();
            }
            outcome.insert(format!("seen {name}"), shortened(&value));
        }
        outcome.insert("seen body".into(), bytes_as_text(&seen.body));
        if !seen.trailers.is_empty() {
            outcome.insert("seen trailers".into(), format!("{:?}", seen.trailers));
        }
    }
    if !record.tunnelled.is_empty() {
        outcome.insert("tunnelled".into(), bytes_as_text(&record.tunnelled));
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= 64 {
        return text.to_owned();
    }
    bytes_as_text(text.as_bytes())
}

/// Short bytes as they are, long ones by their number and a sum that depends on their order.
pub(crate) fn bytes_as_text(bytes: &[u8]) -> String {
    if bytes.len() <= 64 {
        return bytes.escape_ascii().to_string();
    }
    let sum = bytes
        .iter()
        .fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    format!("{} bytes, sum {sum}", bytes.len())
}

/// The aspects in which they differ, for nginx and for ws-ingress; empty when they do not.
pub(crate) fn differences(nginx: &Outcome, ours: &Outcome) -> (String, String) {
    let (mut nginx, mut ours) = (nginx.clone(), ours.clone());
    apply_standing_rules(&mut nginx, &mut ours);
    let untouched = |outcome: &Outcome| outcome.get("seen").is_some_and(|seen| seen == "nothing");
    let told = |outcome: &Outcome| outcome.keys().any(|key| key.starts_with("answer "));
    // What only one of them has is told by the status and the request line.
    let one_refused = untouched(&nginx) != untouched(&ours);
    let one_answered = told(&nginx) != told(&ours);
    let mut texts = (Vec::new(), Vec::new());
    let names: std::collections::BTreeSet<_> = nginx.keys().chain(ours.keys()).cloned().collect();
    for name in names {
        let detail = name.starts_with("seen ") || name.starts_with("answer ");
        let next = name.starts_with("next answer ");
        if next && nginx.get("next status") != ours.get("next status") {
            continue;
        }
        if one_refused && detail || one_answered && name.starts_with("answer ") {
            continue;
        }
        let (a, b) = (nginx.get(&name), ours.get(&name));
        if a != b {
            let text = |value: Option<&String>| match value.map(String::as_str) {
                None => format!("no `{name}`"),
                Some(value) => format!("`{name}: {}`", value.replace('|', "\\|")),
            };
            texts.0.push(text(a));
            texts.1.push(text(b));
        }
    }
    (texts.0.join("; "), texts.1.join("; "))
}

/// The differences that every request has, which the document lists once: they are checked here and taken out.
fn apply_standing_rules(nginx: &mut Outcome, ours: &mut Outcome) {
    if !ours.contains_key("seen host") {
        return;
    }
    for name in ALWAYS_ADDED {
        let aspect = format!("seen {name}");
        assert!(ours.contains_key(&aspect), "ws-ingress adds {name}");
    }
    let added = ours.keys().filter(|aspect| {
        let name = aspect.strip_prefix("seen ").unwrap_or_default();
        is_about_the_client(name) && !nginx.contains_key(*aspect)
    });
    for aspect in added.cloned().collect::<Vec<_>>() {
        ours.remove(&aspect);
    }
    let closes = nginx
        .get("seen connection")
        .is_some_and(|value| value == "close");
    // `map`'s `''`; what ws-ingress leaves out is the default of HTTP/1.1.
    if closes && !ours.contains_key("seen connection") {
        nginx.remove("seen connection");
    }
}

/// The headers by which a proxy tells a backend of the client, the recipe's two aside.
fn is_about_the_client(name: &str) -> bool {
    let forwarded = name.starts_with("x-forwarded-") && name != "x-forwarded-for";
    forwarded || ["cdn-loop", "forwarded", "x-request-id", "x-ws-ingress-rule"].contains(&name)
}
