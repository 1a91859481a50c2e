//! One socket and many random messages: what to send, a backend that sends everything back, and a client that works on plain bytes.
//!
//! The messages come from a seed, which a failed test shows; `CONVERSATION_SEED` makes them the same again.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backend::{SWITCHING, fill};
use crate::frame::{self, BINARY, CLOSE, TEXT};
use crate::raw::{Connection, upgrade};
use crate::wait::within;

/// Messages of one conversation.
pub const MESSAGES: usize = 10_000;

/// Sends run ahead of their echoes by this many messages, so that both directions are busy at once.
const WINDOW: usize = 64;

/// Buffers of the backend's kernel, as far as it follows.
const NARROW_BYTES: u32 = 4096;

/// Room of one read.
const READ_BYTES: usize = 64 * 1024;

/// The seed that is asked for, or a new one; shown when the test fails.
pub fn seed() -> u32 {
    let asked = std::env::var("CONVERSATION_SEED");
    let seed = match asked {
        Ok(seed) => seed.parse().expect("CONVERSATION_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.subsec_nanos()),
    };
    eprintln!("CONVERSATION_SEED={seed}");
    seed
}

/// Random messages, the same for the same seed.
struct Messages {
    state: u64,
    number: usize,
}

impl Messages {
    fn new(seed: u32) -> Self {
        Self {
            state: u64::from(seed) + 1,
            number: 0,
        }
    }

    /// xorshift64*.
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, limit: u64) -> usize {
        usize::try_from(self.random() % limit).unwrap_or_default()
    }

    fn size(&mut self) -> usize {
        if self.number % 2500 == 1000 {
            return 1 << 20;
        }
        match self.below(10) {
            0..7 => self.below(126),
            7 | 8 => self.below(4000),
            _ => self.below(70_001),
        }
    }

    fn next(&mut self) -> (u8, Vec<u8>) {
        let size = self.size();
        self.number += 1;
        let opcode = if self.below(2) == 0 { TEXT } else { BINARY };
        let mut payload = Vec::with_capacity(size + 8);
        while payload.len() < size {
            payload.extend_from_slice(&self.random().to_le_bytes());
        }
        payload.truncate(size);
        if opcode == TEXT {
            for byte in &mut payload {
                *byte = b' ' + *byte % 94;
            }
        }
        (opcode, payload)
    }
}

/// A backend that sends every frame back as it came, and keeps count of the messages.
pub struct Mirror {
    pub address: SocketAddr,
    tasks: JoinSet<usize>,
}

impl Mirror {
    /// Takes one connection.
    pub fn start() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Every accepted socket takes them over: what is long finds no room at once, and waits in the proxy.
        socket.set_recv_buffer_size(NARROW_BYTES)?;
        socket.set_send_buffer_size(NARROW_BYTES)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("an open connection");
            mirror(stream).await
        });
        Ok(Self { address, tasks })
    }

    /// How many messages it had when its client had closed.
    pub async fn messages(mut self) -> usize {
        let ended = within("the end of the backend's socket", self.tasks.join_next()).await;
        ended.expect("one socket").expect("a socket that ends well")
    }
}

async fn mirror(stream: TcpStream) -> usize {
    let mut connection = Connection::from_tcp(stream);
    let request = connection.request().await.expect("a request");
    let answer = fill(SWITCHING, &request);
    connection.send(answer).await.expect("an open connection");
    let mut messages = 0;
    loop {
        let frame = connection.frame().await.expect("a frame");
        assert!(frame.masked, "a client's frame");
        messages += usize::from(frame.last && frame.opcode != CLOSE);
        let mut back = frame::unmasked(frame.opcode, &frame.payload);
        if !frame.last {
            back[0] &= 0x7f;
        }
        connection.send(back).await.expect("an open connection");
        if frame.opcode == CLOSE {
            return messages;
        }
    }
}

/// Upgrades on a connection, sends [`MESSAGES`] and checks each echo, and closes.
pub async fn converse(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
    host: &str,
    seed: u32,
) {
    let mut received = Vec::new();
    sink.write_all(upgrade(host, "/", "").as_bytes())
        .await
        .expect("an open connection");
    sink.flush().await.expect("an open connection");
    let head = loop {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break received.drain(..end + 4).collect::<Vec<_>>();
        }
        more(&mut source, &mut received).await;
    };
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", head.escape_ascii());

    let (underway, mut sent) = mpsc::channel(WINDOW);
    let sending = async {
        let mut messages = Messages::new(seed);
        for _ in 0..MESSAGES {
            let (opcode, payload) = messages.next();
            let bytes = frame::masked(opcode, &payload);
            underway.send((opcode, payload)).await.expect("a reader");
            sink.write_all(&bytes).await.expect("an open connection");
            sink.flush().await.expect("an open connection");
        }
        let close = frame::masked(CLOSE, &1000_u16.to_be_bytes());
        sink.write_all(&close).await.expect("an open connection");
        sink.flush().await.expect("an open connection");
    };
    let checking = async {
        let mut received = VecDeque::from(received);
        for number in 0..MESSAGES {
            let echo = next_frame(&mut source, &mut received).await;
            let (opcode, payload) = sent.recv().await.expect("an echo of something");
            assert!(
                (echo.opcode, &echo.payload) == (opcode, &payload) && echo.last && !echo.masked,
                "echo {number} differs: {} bytes of {} for {} of {opcode}",
                echo.payload.len(),
                echo.opcode,
                payload.len(),
            );
        }
        let close = next_frame(&mut source, &mut received).await;
        assert_eq!(close.close_code(), Some(1000));
    };
    tokio::join!(sending, checking);
}

async fn next_frame(
    source: &mut (impl AsyncRead + Unpin),
    received: &mut VecDeque<u8>,
) -> frame::Frame {
    loop {
        if let Some((frame, used)) = frame::parse(received.make_contiguous()) {
            received.drain(..used);
            return frame;
        }
        let mut bytes = Vec::new();
        more(source, &mut bytes).await;
        received.extend(bytes);
    }
}

async fn more(source: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) {
    bytes.reserve(READ_BYTES);
    let read = within("more of the answer", source.read_buf(bytes)).await;
    assert!(read.expect("an open connection") > 0, "the stream ended");
}
