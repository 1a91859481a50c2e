//! The backend's side of an upgrade: connect, write the request, judge the answer.
//!
//! hyper's client cannot spell `Sec-WebSocket-Key` as old backends expect it, so the head is written here and the answer's head
//! is parsed with httparse. One fresh connection an upgrade; what follows a 101 belongs to the relay, what follows any other
//! answer is its body (`upstream/answer.rs`).

mod answer;
mod dial;
mod tls;

use std::borrow::Cow;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Response, StatusCode, Uri};
use hyper::ext::ReasonPhrase;
use route_table::{ExternalTls, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::balance::Chosen;
use crate::fields;
use crate::forward::Body;
use crate::handshake::{Agreed, Opening, check_answer};
use crate::reject::Reject;
use crate::send_limit::SendLimit;
use crate::stream::Stream;

pub(crate) use self::dial::Dialer;
pub use self::dial::SourceError;
pub use self::tls::AuthoritiesError;
pub(crate) use self::tls::BackendTls;

/// Most interim answers (100, 103) before the final one; real servers send one.
const MAX_INTERIM_ANSWERS: usize = 8;

/// Of a request head beside its target and fields: the rest of the first line, Upgrade, Connection, and the end.
const FIXED_BYTES: usize = 64;

/// A request as the backend gets it.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) fields: HeaderMap,
}

/// How much a backend's answer may hold, and how long its body may pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerLimits {
    pub(crate) head_bytes: usize,
    pub(crate) head_fields: usize,
    /// Zero is none.
    pub(crate) read: Duration,
}

/// What the backend said.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A proven 101, and the tunnel behind it.
    Upgraded(Response<()>, Upgraded),
    /// Any other answer, to be passed on whole.
    Refused(Response<Body>),
}

/// The backend's end of a tunnel.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    /// Bytes that came with the 101.
    pub(crate) leftover: Bytes,
    pub(crate) agreed: Agreed,
}

/// Connects to the endpoint that was chosen, writes the PROXY header that it wants, and then speaks TLS if it is to, all within
/// `timeouts.connect` and at the latest by `deadline`. With a header, the connection is that client's alone. Where no local port is left for
/// the endpoint, another one of its backend becomes the one that was chosen.
pub(crate) async fn connect(
    chosen: &mut Chosen,
    dialer: &Dialer,
    timeouts: &Timeouts,
    deadline: Instant,
) -> Result<Stream, Reject> {
    let limit = deadline.min(Instant::now() + timeouts.connect);
    // Made where it is awaited: a future that has a name takes its room twice.
    let connected = timeout_at(limit, async {
        let mut tcp = dialer.connect(chosen).await?;
        let address = chosen.place.address();
        // A message is one write here; waiting for more would only delay it.
        tcp.set_nodelay(true).map_err(|_| Reject::Unreachable)?;
        if let Some(preface) = &chosen.preface {
            preface.write(&mut tcp).await.map_err(unreachable)?;
        }
        let stream = SendLimit::new(tcp, timeouts.send);
        let external = chosen.external.as_deref();
        let over_tls = external.and_then(|external| Some((&external.host, external.tls.as_ref()?)));
        match over_tls {
            None => Ok(Stream::Plain(stream)),
            Some((host, ExternalTls { authorities })) => {
                // Apart: most backends speak no TLS, and need less room.
                let connecting = Box::pin(dialer.tls.connect(stream, host, authorities));
                connecting.await.map_err(|failure| {
                    tracing::debug!(%host, %address, %failure, cause = ?failure, "no TLS with the backend");
                    Reject::BackendTls
                })
            }
        }
    })
    .await
    .unwrap_or(Err(Reject::ConnectTimeout));
    if let Err(reject) = &connected {
        dialer.metrics.upstream_connect_failed(reject.label());
    }
    connected
}

/// Asks for the upgrade and judges the answer, at the latest by `deadline`.
pub(crate) async fn upgrade(
    stream: Stream,
    request: Request<'_>,
    opening: &Opening,
    limits: AnswerLimits,
    deadline: Instant,
) -> Result<Answer, Reject> {
    timeout_at(deadline, exchange(stream, request, opening, limits))
        .await
        .unwrap_or(Err(Reject::AnswerTimeout))
}

async fn exchange(
    mut stream: Stream,
    request: Request<'_>,
    opening: &Opening,
    limits: AnswerLimits,
) -> Result<Answer, Reject> {
    stream
        .write_all(&request_head(&request))
        .await
        .map_err(unreachable)?;
    // TLS may hold back what it has encrypted.
    stream.flush().await.map_err(unreachable)?;
    let mut received = BytesMut::new();
    for _ in 0..=MAX_INTERIM_ANSWERS {
        let head = read_head(&mut stream, &mut received, limits).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // HTTP/1.0 knows no upgrade (RFC 9110 §7.8).
            if head.is_http_10 {
                return Err(Reject::BadAnswer);
            }
            let agreed = check_answer(&head.fields, opening)?;
            let mut response = Response::new(());
            *response.status_mut() = head.status;
            *response.headers_mut() = fields::to_client(head.status, &head.fields);
            response
                .headers_mut()
                .insert(UPGRADE, HeaderValue::from_static("websocket"));
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            let upgraded = Upgraded {
                stream,
                leftover: received.freeze(),
                agreed,
            };
            return Ok(Answer::Upgraded(response, upgraded));
        }
        if !head.status.is_informational() {
            return answer::pass_on(stream, &head, received, limits.read).map(Answer::Refused);
        }
    }
    Err(Reject::BadAnswer)
}

fn request_head(request: &Request<'_>) -> Vec<u8> {
    let fields = request.fields.iter();
    // ": " and the line end.
    let length: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let mut head = Vec::with_capacity(request.target.len() + length + FIXED_BYTES);
    for part in ["GET ", request.target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    // Host first, as RFC 9112 §3.2 asks for.
    if let Some(host) = request.fields.get(HOST) {
        write_field(&mut head, &HOST, host);
    }
    head.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    for (name, value) in request.fields.iter().filter(|(name, _)| **name != HOST) {
        write_field(&mut head, name, value);
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn write_field(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    spell(head, name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(b"\r\n");
}

/// Writes a field name as its specification spells it, for the backends that compare it byte by byte.
fn spell(head: &mut Vec<u8>, name: &HeaderName) {
    let known = match name.as_str() {
        "sec-websocket-extensions" => "Sec-WebSocket-Extensions",
        "sec-websocket-key" => "Sec-WebSocket-Key",
        "sec-websocket-protocol" => "Sec-WebSocket-Protocol",
        "sec-websocket-version" => "Sec-WebSocket-Version",
        "x-real-ip" => "X-Real-IP",
        "x-request-id" => "X-Request-ID",
        "dnt" => "DNT",
        name => {
            let mut begins = true;
            head.extend(name.bytes().map(|byte| {
                let begun = std::mem::replace(&mut begins, byte == b'-');
                if begun {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                }
            }));
            return;
        }
    };
    head.extend_from_slice(known.as_bytes());
}

/// An answer's status and fields.
#[derive(Debug)]
struct Head {
    status: StatusCode,
    /// The words beside the status, where they are the backend's own.
    reason: Option<ReasonPhrase>,
    /// HTTP/1.0, where chunks and upgrades do not exist.
    is_http_10: bool,
    fields: HeaderMap,
}

/// Reads one head; what follows it stays in `received`.
async fn read_head(
    stream: &mut Stream,
    received: &mut BytesMut,
    limits: AnswerLimits,
) -> Result<Head, Reject> {
    loop {
        if let Some((head, length)) = parse_head(received, limits)? {
            let _ = received.split_to(length);
            return Ok(head);
        }
        if received.len() >= limits.head_bytes {
            return Err(Reject::BadAnswer);
        }
        received.reserve(4096.min(limits.head_bytes));
        if stream.read_buf(received).await.map_err(unreachable)? == 0 {
            // Nothing at all is a backend that went away, half a head is one that is broken.
            return Err(if received.is_empty() {
                Reject::Unreachable
            } else {
                Reject::BadAnswer
            });
        }
    }
}

fn parse_head(received: &[u8], limits: AnswerLimits) -> Result<Option<(Head, usize)>, Reject> {
    let mut storage = vec![MaybeUninit::uninit(); limits.head_fields];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, received, &mut storage);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            tracing::debug!(%error, "backend's answer is not HTTP");
            return Err(Reject::BadAnswer);
        }
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(Reject::BadAnswer)?;
    let own = response
        .reason
        .filter(|reason| status.canonical_reason() != Some(*reason));
    let reason = own.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let mut fields = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Reject::BadAnswer)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Reject::BadAnswer)?;
        fields.append(name, value);
    }
    Ok(Some((
        Head {
            status,
            reason,
            is_http_10: response.version == Some(0),
            fields,
        },
        length,
    )))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands in map_err, which gives the error away"
)]
fn unreachable(error: io::Error) -> Reject {
    tracing::debug!(%error, "backend's connection broke before its answer");
    if error.kind() == io::ErrorKind::TimedOut {
        Reject::AnswerTimeout
    } else {
        Reject::Unreachable
    }
}

/// The request target in origin-form; an absolute URL may have no path at all (RFC 9112 §3.2.1).
pub(crate) fn origin_form(uri: &Uri) -> Cow<'_, str> {
    match uri.path_and_query().map_or("/", |target| target.as_str()) {
        target if target.starts_with('/') => target.into(),
        query => format!("/{query}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_always_in_origin_form() {
        for (uri, expected) in [
            ("/a?b", "/a?b"),
            ("http://a.example.com/x", "/x"),
            ("http://a.example.com?x=1", "/?x=1"),
            ("http://a.example.com", "/"),
        ] {
            assert_eq!(origin_form(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn head_is_spelled_as_specified() {
        let mut fields = HeaderMap::new();
        for name in ["sec-websocket-key", "host", "x-real-ip", "user-agent"] {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let head = String::from_utf8(request_head(&Request {
            target: "/a?b",
            fields,
        }))
        .unwrap();
        let mut lines = head.split("\r\n");
        assert_eq!(lines.next(), Some("GET /a?b HTTP/1.1"));
        assert_eq!(lines.next(), Some("Host: v"));
        for line in [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: v",
            "X-Real-IP: v",
            "User-Agent: v",
        ] {
            assert!(
                head.contains(&format!("\r\n{line}\r\n")),
                "{line} in {head}"
            );
        }
        assert!(head.ends_with("\r\n\r\n"));
    }
}
