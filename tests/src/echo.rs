//! The echo backend of the demo and the tests: a page, a WebSocket that says who serves it and then echoes, and a few
//! plain HTTP answers to forward.
//!
//! | request | answer |
//! |---|---|
//! | upgrade, any path | WebSocket; `?quiet` leaves out the first message, `?close=4001` closes from this side |
//! | end of the process, if asked for | every socket is closed with 1001, as a good backend does |
//! | `GET /` | the demo page |
//! | `GET /count` | handshakes so far, as JSON |
//! | any `/headers` | method, target and headers as they arrived, as JSON |
//! | `POST /echo` | the body, streamed back while it arrives |
//! | `GET /bytes/N`, `GET /chunks/N` | N bytes with a length; N chunks without one |

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::header::{CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The demo page; it loads nothing from anywhere else.
const PAGE: &str = include_str!("page.html");

/// The header in which the proxy says which rule chose this backend.
const RULE_HEADER: &str = "x-ws-ingress-rule";

/// Size of one chunk of `/chunks/N`.
const CHUNK: &[u8] = &[b'c'; 1024];

type Body = BoxBody<Bytes, hyper::Error>;

/// One backend; it may listen on several addresses.
pub struct Echo {
    name: String,
    subprotocol: Option<String>,
    handshakes: AtomicU64,
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Echo {
    /// `subprotocol` is agreed to when a client offers it.
    pub fn new(name: String, subprotocol: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            name,
            subprotocol,
            handshakes: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        })
    }

    /// Closes every socket with 1001, those that are opened from now on too, and returns when all have ended.
    pub async fn close_all(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Serves until the listener fails.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        say(&format!("echo listening on {address}"));
        loop {
            let (stream, peer) = listener.accept().await?;
            // A peer that is gone already takes no option, and that must not end this program.
            let _ = stream.set_nodelay(true);
            let ends = Ends { address, peer };
            self.tasks.spawn(Arc::clone(&self).connection(stream, ends));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, ends: Ends) {
        let service = service_fn(|request| {
            let answer = self.answer(request, ends);
            async { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // A peer that goes away in the middle is not this program's trouble. At the end a connection that is kept open for
        // another request is not waited for; one that was upgraded has left here already.
        tokio::select! {
            _ = connection => {}
            () = self.ending.cancelled() => {}
        }
    }

    fn answer(self: &Arc<Self>, request: Request<Incoming>, ends: Ends) -> Response<Body> {
        if request.headers().contains_key(header::UPGRADE) {
            return self.upgrade(request, ends);
        }
        let path = request.uri().path().to_owned();
        match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
            [""] => with_type("text/html; charset=utf-8", PAGE),
            ["count"] => {
                let count = json!({ "handshakes": self.handshakes.load(Ordering::SeqCst) });
                with_type("application/json", count.to_string())
            }
            ["headers"] => with_type("application/json", request_as_json(&request)),
            ["echo"] if request.method() == Method::POST => {
                Response::new(request.into_body().boxed())
            }
            ["bytes", count] => match count.parse() {
                Ok(count) => with_type("application/octet-stream", vec![b'b'; count]),
                Err(_) => with_status(StatusCode::BAD_REQUEST),
            },
            ["chunks", count] => match count.parse() {
                Ok(count) => chunks(count),
                Err(_) => with_status(StatusCode::BAD_REQUEST),
            },
            _ => with_status(StatusCode::NOT_FOUND),
        }
    }

    fn upgrade(self: &Arc<Self>, mut request: Request<Incoming>, ends: Ends) -> Response<Body> {
        let Ok(mut response) = create_response_with_body(&request, || full("")) else {
            return with_status(StatusCode::BAD_REQUEST);
        };
        self.handshakes.fetch_add(1, Ordering::SeqCst);
        let subprotocol = self
            .subprotocol
            .as_deref()
            .filter(|name| offers(request.headers(), name));
        if let Some(value) = subprotocol.and_then(|name| HeaderValue::from_str(name).ok()) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        let rule = request
            .headers()
            .get(RULE_HEADER)
            .and_then(|value| value.to_str().ok());
        let Ends { address, peer } = ends;
        let hello = json!({
            "type": "hello", "name": self.name, "address": address.to_string(), "peer": peer.ip().to_canonical().to_string(),
            "rule": rule, "subprotocol": subprotocol,
        });
        let wish = Wish::from_query(request.uri().query().unwrap_or_default(), hello.to_string());
        let (echo, upgraded) = (Arc::clone(self), hyper::upgrade::on(&mut request));
        self.tasks.spawn(async move {
            if let Ok(stream) = upgraded.await {
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None)
                        .await;
                echo.talk(socket, wish).await;
            }
        });
        response
    }

    async fn talk(
        &self,
        mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
        wish: Wish,
    ) {
        if let Some(hello) = wish.hello
            && socket.send(Message::text(hello)).await.is_err()
        {
            return;
        }
        if let Some(code) = wish.close {
            let reason = Utf8Bytes::from_static("asked for");
            let _ = socket
                .send(Message::Close(Some(CloseFrame {
                    code: code.into(),
                    reason,
                })))
                .await;
        }
        let mut told = false;
        loop {
            // tungstenite answers pings and a Close by itself, and ends the stream after the latter.
            let message = tokio::select! {
                message = socket.next() => message,
                () = self.ending.cancelled(), if !told => {
                    told = true;
                    let frame = CloseFrame { code: CloseCode::Away, reason: Utf8Bytes::from_static("the backend ends") };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    continue;
                }
            };
            let Some(Ok(message)) = message else { break };
            match &message {
                Message::Text(text) => say(&format!("{} received text: {text}", self.name)),
                Message::Close(Some(frame)) => say(&format!(
                    "{} received close: {}",
                    self.name,
                    u16::from(frame.code)
                )),
                _ => {}
            }
            // Nothing may follow our Close; what the peer sent before it saw that is read and left.
            if !told
                && matches!(message, Message::Text(_) | Message::Binary(_))
                && socket.send(message).await.is_err()
            {
                break;
            }
        }
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy)]
struct Ends {
    address: SocketAddr,
    peer: SocketAddr,
}

/// What a client asked for in its query.
struct Wish {
    hello: Option<String>,
    close: Option<u16>,
}

impl Wish {
    fn from_query(query: &str, hello: String) -> Self {
        let words = || query.split('&');
        let quiet = words().any(|word| word == "quiet");
        let close = words().find_map(|word| word.strip_prefix("close=")?.parse().ok());
        Self {
            hello: (!quiet).then_some(hello),
            close,
        }
    }
}

fn offers(headers: &HeaderMap, name: &str) -> bool {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    lines
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|one| one.trim() == name)
}

fn request_as_json<T>(request: &Request<T>) -> String {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    let headers: Vec<_> = headers.collect();
    json!({ "method": request.method().as_str(), "target": request.uri().to_string(), "headers": headers }).to_string()
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

fn with_type(kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut response = with_type("text/plain", format!("{status}\n"));
    *response.status_mut() = status;
    response
}

fn chunks(count: usize) -> Response<Body> {
    let frames = stream::iter((0..count).map(|_| Ok(Frame::data(Bytes::from_static(CHUNK)))));
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}

/// One line on stdout, at once; a reader that went away is no reason to stop.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
