//! The backend of the bench: a WebSocket server without TLS, in a process of its own, so that its CPU time is not the client's.
//!
//! The path says what it does: `/chat/echo` sends back what comes, piece by piece; `/chat/sink` answers each message with one of a
//! byte; `/chat/source` sends messages of 1 MiB for as long as they are taken. One thread; a connection that waits has no buffer.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::scanner::{Scanner, Seen, is_message, unmask};
use crate::frame::{BINARY, CLOSE, unmasked};

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// What one connection keeps for its next answer: more was a large message, which may be long ago.
const KEPT_BYTES: usize = 4 * 1024;

/// Length of what a source sends.
pub const SOURCE_BYTES: usize = 1024 * 1024;

/// Longest request head: proxies add a few hundred bytes to the client's.
const HEAD_BYTES: usize = 8 * 1024;

/// Time for a head to come.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

thread_local! {
    /// Shared by all connections: it is borrowed only between two waits.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Serves until the process is ended; prints `listening address=...` first.
#[expect(clippy::print_stdout, reason = "who starts it reads the address")]
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening address={}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("the backend cannot accept")?;
                stream.set_nodelay(true)?;
                // Peers end connections as they like; what that means for a figure is the client's to say.
                connections.spawn(async move { serve(stream).await.ok() });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    let head = timeout(HEAD_LIMIT, read_head(&stream)).await??;
    let target = head.split(' ').nth(1).context("no target")?.to_owned();
    let key = head
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .context("no Sec-WebSocket-Key")?
        .1
        .trim();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept(key)
    );
    stream.write_all(answer.as_bytes()).await?;
    match target.as_str() {
        "/chat/echo" => answer_each(stream, Echo::default()).await?,
        "/chat/sink" => answer_each(stream, Sink).await?,
        "/chat/source" => {
            let message = unmasked(BINARY, &vec![b'd'; SOURCE_BYTES]);
            loop {
                stream.write_all(&message).await?;
            }
        }
        _ => bail!("unknown target {target}"),
    }
    Ok(())
}

/// The Sec-WebSocket-Accept of a key (RFC 6455 §4.2.2).
fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key);
    digest.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}

async fn read_head(stream: &TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_BYTES {
            bail!("a head without an end");
        }
        // Clients of the bench wait for the 101, so nothing stands behind the head.
        if !read(stream, |bytes| head.extend_from_slice(bytes)).await? {
            bail!("the connection ended in the head");
        }
    }
    Ok(String::from_utf8(head)?)
}

/// Waits for bytes and shows them; `false` at the end of the stream.
async fn read(stream: &TcpStream, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    loop {
        stream.readable().await?;
        let result = BUFFER.with_borrow_mut(|buffer| {
            let read = stream.try_read(buffer)?;
            take(&buffer[..read]);
            Ok(read > 0)
        });
        match result {
            Err(error) if io::Error::kind(&error) == ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// What is answered to what was seen.
trait Answer {
    fn answer(&mut self, seen: Seen<'_>, output: &mut Vec<u8>);
}

async fn answer_each(mut stream: TcpStream, mut kind: impl Answer) -> io::Result<()> {
    let mut scanner = Scanner::default();
    let mut output = Vec::new();
    let mut closed = false;
    while !closed {
        let more = read(&stream, |bytes| {
            scanner.feed(bytes, |seen| {
                closed |= matches!(seen, Seen::End(CLOSE));
                kind.answer(seen, &mut output);
            });
        });
        if !more.await? {
            return Ok(());
        }
        stream.write_all(&output).await?;
        output.clear();
        output.shrink_to(KEPT_BYTES);
    }
    // The server ends the TCP connection first (RFC 6455 §7.1.1).
    stream.shutdown().await
}

/// Sends back every frame, the Close included.
#[derive(Default)]
struct Echo {
    mask: [u8; 4],
}

impl Answer for Echo {
    fn answer(&mut self, seen: Seen<'_>, output: &mut Vec<u8>) {
        match seen {
            Seen::Head(head) => {
                self.mask = head.mask.unwrap_or_default();
                output.push(0x80 | head.opcode);
                match (u8::try_from(head.length), u16::try_from(head.length)) {
                    (Ok(short @ 0..=125), _) => output.push(short),
                    (_, Ok(medium)) => {
                        output.push(126);
                        output.extend(medium.to_be_bytes());
                    }
                    _ => {
                        output.push(127);
                        output.extend(head.length.to_be_bytes());
                    }
                }
            }
            Seen::Payload(offset, bytes) => {
                let start = output.len();
                output.extend_from_slice(bytes);
                unmask(&mut output[start..], offset, self.mask);
            }
            Seen::End(_) => {}
        }
    }
}

/// Takes messages and says so.
struct Sink;

impl Answer for Sink {
    fn answer(&mut self, seen: Seen<'_>, output: &mut Vec<u8>) {
        match seen {
            Seen::End(CLOSE) => output.extend(unmasked(CLOSE, &1000_u16.to_be_bytes())),
            Seen::End(opcode) if is_message(opcode) => output.extend(unmasked(BINARY, b"k")),
            Seen::Head(_) | Seen::Payload(..) | Seen::End(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{masked, parse};
    use crate::raw::{ACCEPT, KEY};

    #[test]
    fn the_accept_is_that_of_the_rfc() {
        assert_eq!(accept(KEY), ACCEPT);
    }

    #[test]
    fn an_echo_is_the_message_without_its_mask() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let (mut scanner, mut echo, mut output) =
                (Scanner::default(), Echo::default(), Vec::new());
            for piece in masked(BINARY, &payload).chunks(1_001) {
                scanner.feed(piece, |seen| echo.answer(seen, &mut output));
            }
            let (frame, used) = parse(&output).expect("a whole frame");
            assert_eq!(used, output.len());
            assert!(!frame.masked);
            assert!(frame.payload == payload, "{length} bytes");
        }
    }
}
