//! A backend that keeps every byte it is sent and reads it as strictly as RFC 9112 is written: what is not a whole, unambiguous request
//! is recorded as a stray, so that a test can say "no backend saw anything but the judged request".

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// One request, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body, names in lower case.
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(key, _)| key == name);
        same.map(|(_, value)| value.as_str()).collect()
    }
}

/// What reached the backend since the last look.
#[derive(Debug, Default)]
pub struct Record {
    pub requests: Vec<Seen>,
    /// Bytes that are no whole request, each with what is wrong.
    pub strays: Vec<String>,
    /// Bytes behind a request that was answered with 101.
    pub tunnelled: Vec<u8>,
    pub connections: usize,
}

#[derive(Default)]
struct State {
    record: Record,
    answer: Arc<[u8]>,
}

type Shared = Arc<Mutex<State>>;

/// The backend; it ends with its owner.
pub struct Recorder {
    pub address: SocketAddr,
    state: Shared,
    _tasks: JoinSet<()>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound listener");
        let state = Shared::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                lock(&shared).record.connections += 1;
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// What every request gets from now on; `{accept}` becomes the Accept of its key. The connection ends after an answer that says so or
    /// has no length.
    pub fn answer_with(&self, answer: impl AsRef<[u8]>) {
        lock(&self.state).answer = Arc::from(answer.as_ref());
    }

    /// What came since the last call.
    pub fn take(&self) -> Record {
        std::mem::take(&mut lock(&self.state).record)
    }

    /// Waits until so many bytes are [`Record::tunnelled`].
    pub async fn tunnelled(&self, count: usize) {
        crate::wait::until("bytes in the tunnel", async || {
            (lock(&self.state).record.tunnelled.len() >= count).then_some(())
        })
        .await;
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, state: Shared) {
    let mut buffer = Vec::new();
    loop {
        let read = match read_request(&mut stream, &mut buffer).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return,
            Err(why) => {
                let bytes = String::from_utf8_lossy(&buffer).into_owned();
                lock(&state).record.strays.push(format!("{why}: {bytes:?}"));
                return;
            }
        };
        let key = read.all("sec-websocket-key").concat();
        let answer = {
            let mut state = lock(&state);
            state.record.requests.push(read);
            Arc::clone(&state.answer)
        };
        let answer = replace(&answer, b"{accept}", &derive_accept_key(key.as_bytes()));
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if text.starts_with("http/1.1 101") {
            lock(&state).record.tunnelled.append(&mut buffer);
            while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                lock(&state).record.tunnelled.append(&mut buffer);
            }
            return;
        }
        let framed = ["content-length:", "chunked", " 204 ", " 304 "]
            .iter()
            .any(|word| text.contains(word));
        if !framed || text.contains("connection: close") {
            return;
        }
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &str) -> Vec<u8> {
    match bytes.windows(from.len()).position(|part| part == from) {
        Some(at) => [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// The next request; nothing when the peer ended between two.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<Seen>, String> {
    let head = loop {
        if let Some(at) = buffer.windows(4).position(|part| part == b"\r\n\r\n") {
            break at;
        }
        let ended = !more(stream, buffer).await;
        match (ended, buffer.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => return Err("a head without an end".into()),
            (false, _) => {}
        }
    };
    let (mut seen, framing) = parse_head(&buffer[..head])?;
    let mut body = buffer.split_off(head + 4);
    // Both are shown if the body is bad.
    let rest = match framing {
        Framing::Length(length) => {
            while body.len() < length {
                if !more(stream, &mut body).await {
                    buffer.extend(body);
                    return Err("a body that ends early".into());
                }
            }
            let rest = body.split_off(length);
            seen.body = body;
            rest
        }
        Framing::Chunks => loop {
            let why = match parse_chunks(&body) {
                Ok(Some((whole, trailers, used))) => {
                    (seen.body, seen.trailers) = (whole, trailers);
                    break body.split_off(used);
                }
                Ok(None) if more(stream, &mut body).await => continue,
                Ok(None) => "chunks that end early".into(),
                Err(why) => why,
            };
            buffer.extend(body);
            return Err(why);
        },
    };
    *buffer = rest;
    Ok(Some(seen))
}

/// Whether anything came.
async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let read: io::Result<usize> = stream.read_buf(buffer).await;
    matches!(read, Ok(1..))
}

enum Framing {
    Length(usize),
    Chunks,
}

fn parse_head(head: &[u8]) -> Result<(Seen, Framing), String> {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err("a bad request line".into());
    };
    if !is_token(method) || target.is_empty() || has_controls(target) {
        return Err("a bad method or target".into());
    }
    let headers = lines.map(parse_field).collect::<Result<Vec<_>, _>>()?;
    let seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    if seen.all("host").len() != 1 {
        return Err("not one Host".into());
    }
    let framing = match (
        &seen.all("content-length")[..],
        &seen.all("transfer-encoding")[..],
    ) {
        ([], []) => Framing::Length(0),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| "a bad length")?)
        }
        ([], ["chunked"]) => Framing::Chunks,
        _ => return Err("an ambiguous length".into()),
    };
    Ok((seen, framing))
}

fn parse_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
    if !is_token(name) || has_controls(value) {
        return Err("a bad field".into());
    }
    let value = value.trim_matches([' ', '\t']);
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

type Chunks = (Vec<u8>, Vec<(String, String)>, usize);

/// The body, its trailers and how many bytes both took, once they are whole.
fn parse_chunks(bytes: &[u8]) -> Result<Option<Chunks>, String> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let Some(line) = line_at(bytes, at)? else {
            return Ok(None);
        };
        // No extensions: a proxy must have removed what it does not know (RFC 9112 §7.1.1).
        if line.is_empty() || line.len() > 8 || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a bad chunk size {line:?}"));
        }
        let size = usize::from_str_radix(&line, 16).map_err(|_| "a bad chunk size")?;
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk longer than it says".into());
        }
        body.extend(&data[..size]);
        at += size + 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(line) = line_at(bytes, at)? else {
            return Ok(None);
        };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((body, trailers, at)));
        }
        trailers.push(parse_field(&line)?);
    }
}

/// The line that begins at `at`, without its end, once it is whole.
fn line_at(bytes: &[u8], at: usize) -> Result<Option<String>, String> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = rest[..end].strip_suffix(b"\r").ok_or("a line without CR")?;
    String::from_utf8(line.to_vec())
        .map(Some)
        .map_err(|_| "a line that is no text".into())
}

fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

fn has_controls(text: &str) -> bool {
    text.bytes()
        .any(|byte| byte == 0x7f || byte < b' ' && byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_strictly() {
        let good = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2";
        assert!(parse_head(good.as_bytes()).is_ok());
        for bad in [
            "GET /  HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.0\r\nHost: a",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a",
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\r\nHost : a",
            "GET / HTTP/1.1\r\nHost: a\n X: b",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +2",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
        ] {
            assert!(parse_head(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn chunks_are_read_strictly() {
        let whole = parse_chunks(b"3\r\nabc\r\n0\r\nX: y\r\n\r\nrest")
            .unwrap()
            .unwrap();
        assert_eq!((&*whole.0, whole.2), (&b"abc"[..], 19));
        assert!(parse_chunks(b"3\r\nab").unwrap().is_none());
        for bad in [
            "3;x=y\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n",
            "-3\r\nabc",
        ] {
            assert!(parse_chunks(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
