//! Backends that misbehave on request. A test either gives the answer beforehand ([`Backend::answering`]) or plays the
//! backend itself, connection by connection ([`Backend::played`]). All of them count what reaches them, because most
//! refusals promise that no backend was contacted.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::raw::{Connection, NARROW_BYTES, Request};
use crate::wait::within;

/// Connections that may wait until a test takes them.
const WAITING: usize = 16;

/// A right answer to an upgrade. `{accept}` becomes the Accept of the request's key, here and in every answer.
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";

/// What a scripted backend saw so far.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

/// A listening backend; it ends with its owner.
pub struct Backend {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    played: Option<mpsc::Receiver<Connection>>,
    /// Dropped last words: aborting the set ends the listener and every connection.
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Reads every request, answers it with this text, and ends the stream unless the answer is a whole 101.
    pub fn answering(answer: &str) -> Self {
        let (listener, address) = listen();
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_all(listener, Arc::clone(&seen), Arc::from(answer)));
        Self {
            address,
            seen,
            played: None,
            _tasks: tasks,
        }
    }

    /// Takes every upgrade, and then only reads.
    pub fn accepting() -> Self {
        Self::answering(SWITCHING)
    }

    /// Takes connections and never says a word.
    pub fn silent() -> Self {
        Self::answering("")
    }

    /// Hands every connection to the test, through [`Self::next`].
    pub fn played() -> Self {
        let (listener, address) = listen();
        let seen = Arc::new(Seen::default());
        let (hand_over, played) = mpsc::channel(WAITING);
        let counter = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.connections.fetch_add(1, Ordering::SeqCst);
                if hand_over.send(Connection::from_tcp(stream)).await.is_err() {
                    break;
                }
            }
        });
        Self {
            address,
            seen,
            played: Some(played),
            _tasks: tasks,
        }
    }

    /// The next connection, its request read but not answered.
    pub async fn next(&mut self) -> (Connection, Request) {
        let mut connection = self.next_connection().await;
        let request = connection.request().await.expect("a request");
        (connection, request)
    }

    /// The next connection, of which nothing was read.
    pub async fn next_connection(&mut self) -> Connection {
        let played = self.played.as_mut().expect("a backend that the test plays");
        within("a connection at the backend", played.recv())
            .await
            .expect("the listener lives")
    }

    /// The next connection, its upgrade accepted.
    pub async fn next_open(&mut self) -> Connection {
        let (mut connection, request) = self.next().await;
        connection
            .send(fill(SWITCHING, &request))
            .await
            .expect("the proxy reads the answer");
        connection
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Requests that an [`Self::answering`] backend read so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Puts the Accept for this request in the place of `{accept}`.
pub fn fill(answer: &str, request: &Request) -> String {
    let key = request.header("sec-websocket-key").unwrap_or_default();
    answer.replace("{accept}", &derive_accept_key(key.as_bytes()))
}

fn listen() -> (TcpListener, SocketAddr) {
    let listening = || -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        // Every accepted socket takes it over.
        socket.set_recv_buffer_size(NARROW_BYTES)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.listen(128)
    };
    let listener = listening().expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    (listener, address)
}

async fn answer_all(listener: TcpListener, seen: Arc<Seen>, answer: Arc<str>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(answer_one(stream, Arc::clone(&seen), Arc::clone(&answer)));
    }
}

async fn answer_one(stream: TcpStream, seen: Arc<Seen>, answer: Arc<str>) {
    let mut connection = Connection::from_tcp(stream);
    let Ok(request) = connection.request().await else {
        return;
    };
    let text = fill(&answer, &request);
    seen.requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request);
    if connection.send(text).await.is_err() {
        return;
    }
    let switched = answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\n");
    if answer.is_empty() || switched {
        // Held until the proxy ends it, however long that takes.
        while connection.exactly(1).await.is_ok() {}
    }
}

/// An address where nobody listens.
pub fn refusing() -> SocketAddr {
    // Bound and dropped: the kernel does not give the same port out again at once.
    listen().1
}

/// An address where a connection is never established: a listener that does not accept, with a full queue.
pub struct Deaf {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

/// Connections until a queue of 1 must be full, with room for the kernel's own arithmetic.
const QUEUE_TRIES: usize = 16;

impl Deaf {
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        let listener = socket.listen(1).expect("a listener");
        let address = listener.local_addr().expect("a bound listener");
        let mut queued = Vec::new();
        for _ in 0..QUEUE_TRIES {
            // On loopback a connection takes microseconds; one that takes this long is not taken at all.
            match timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
                Ok(stream) => queued.push(stream.expect("a connection or none")),
                Err(_) => {
                    return Self {
                        address,
                        _listener: listener,
                        _queued: queued,
                    };
                }
            }
        }
        panic!("the queue of a listener never filled");
    }
}
