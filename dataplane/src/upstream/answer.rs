//! A backend's own answer to an upgrade (401, 302, 503, ...), passed on whole.
//!
//! The body is framed by Content-Length, by chunks or by the end of the connection (RFC 9112 §6.3) and streamed as it comes. A
//! body that ends early is an error, so that the client never takes it for complete. The connection closes after it.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::try_unfold;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::AsyncReadExt as _;

use super::Head;
use crate::fields::{self, TransferCoding, transfer_coding};
use crate::forward::{Body, empty, sent_before_failure, within};
use crate::reject::Reject;
use crate::stream::Stream;

/// Longest line of chunk size with its extensions, and of one trailer field.
const MAX_CHUNK_LINE_BYTES: usize = 4096;
/// Longest piece of a body that is held at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Most trailer fields that are read past.
const MAX_TRAILERS: usize = 64;

/// How a body ends.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// Where a chunked body stands.
#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(u64),
    /// The line end after a chunk's data.
    End,
}

/// The answer for the client; `received` is what came after the head, `read` the longest pause in the body.
pub(super) fn pass_on(
    stream: Stream,
    head: &Head,
    received: BytesMut,
    read: Duration,
) -> Result<Response<Body>, Reject> {
    let framing = framing(head)?;
    let mut response = Response::new(match framing {
        Framing::Length(0) => empty(),
        Framing::Length(_) | Framing::Chunked(_) | Framing::UntilClose => {
            let pieces = Pieces {
                stream,
                received,
                framing,
            };
            let stream = try_unfold(pieces, |mut pieces| async {
                Ok::<_, io::Error>(
                    pieces
                        .next()
                        .await?
                        .map(|piece| (Frame::data(piece), pieces)),
                )
            });
            let body = StreamBody::new(stream).map_err(Into::into).boxed_unsync();
            sent_before_failure(within(body, read))
        }
    });
    *response.status_mut() = head.status;
    *response.headers_mut() = fields::to_client(head.status, &head.fields);
    if let Some(reason) = head.reason.clone() {
        response.extensions_mut().insert(reason);
    }
    // Early client bytes may wait behind a refused handshake; they must not be read as the next request.
    response
        .headers_mut()
        .append(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn framing(head: &Head) -> Result<Framing, Reject> {
    if matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        return Ok(Framing::Length(0));
    }
    match transfer_coding(&head.fields) {
        // HTTP/1.0 knows no chunks.
        Some(TransferCoding::Chunked) if !head.is_http_10 => Ok(Framing::Chunked(Chunk::Size)),
        Some(TransferCoding::Chunked) | None => Err(Reject::BadAnswer),
        Some(TransferCoding::None) => {
            let length = content_length(&head.fields)?;
            Ok(length.map_or(Framing::UntilClose, Framing::Length))
        }
    }
}

fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Reject> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    let digits = length
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (
        digits.and_then(|digits| digits.parse().ok()),
        lengths.next(),
    ) {
        (Some(length), None) => Ok(Some(length)),
        (Some(_) | None, _) => Err(Reject::BadAnswer),
    }
}

/// A body that is still being read.
#[derive(Debug)]
struct Pieces {
    stream: Stream,
    received: BytesMut,
    framing: Framing,
}

impl Pieces {
    /// The next bytes of the body, or nothing at its end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match &mut self.framing {
                Framing::UntilClose => {
                    let more = !self.received.is_empty() || self.fill().await?;
                    return Ok(more.then(|| self.received.split().freeze()));
                }
                Framing::Length(0) => return Ok(None),
                Framing::Length(rest) => {
                    let mut rest = *rest;
                    let piece = self.piece(&mut rest).await?;
                    self.framing = Framing::Length(rest);
                    return Ok(Some(piece));
                }
                Framing::Chunked(Chunk::Size) => {
                    let line = self.line().await?;
                    let size = chunk_size(&line)?;
                    if size == 0 {
                        self.skip_trailers().await?;
                        return Ok(None);
                    }
                    self.framing = Framing::Chunked(Chunk::Data(size));
                }
                Framing::Chunked(Chunk::Data(0)) => self.framing = Framing::Chunked(Chunk::End),
                Framing::Chunked(Chunk::Data(rest)) => {
                    let mut rest = *rest;
                    let piece = self.piece(&mut rest).await?;
                    self.framing = Framing::Chunked(Chunk::Data(rest));
                    return Ok(Some(piece));
                }
                Framing::Chunked(Chunk::End) => {
                    if !self.line().await?.is_empty() {
                        return Err(broken("a chunk is longer than it says"));
                    }
                    self.framing = Framing::Chunked(Chunk::Size);
                }
            }
        }
    }

    /// Reads once; whether anything came.
    async fn fill(&mut self) -> io::Result<bool> {
        self.received.reserve(PIECE_BYTES);
        Ok(self.stream.read_buf(&mut self.received).await? > 0)
    }

    /// Some of the `rest` bytes that are due.
    async fn piece(&mut self, rest: &mut u64) -> io::Result<Bytes> {
        if self.received.is_empty() && !self.fill().await? {
            return Err(broken("the body ends early"));
        }
        let length = usize::try_from(*rest)
            .map_or(self.received.len(), |rest| rest.min(self.received.len()));
        *rest -= length as u64;
        Ok(self.received.split_to(length).freeze())
    }

    /// The next line without its end.
    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.split_to(end + 1).freeze();
                let line = line
                    .strip_suffix(b"\r\n")
                    .ok_or_else(|| broken("a line ends without CR"))?;
                return Ok(Bytes::copy_from_slice(line));
            }
            if self.received.len() > MAX_CHUNK_LINE_BYTES {
                return Err(broken("a chunk line is too long"));
            }
            if !self.fill().await? {
                return Err(broken("the body ends early"));
            }
        }
    }

    async fn skip_trailers(&mut self) -> io::Result<()> {
        for _ in 0..=MAX_TRAILERS {
            if self.line().await?.is_empty() {
                return Ok(());
            }
        }
        Err(broken("too many trailers"))
    }
}

fn chunk_size(line: &[u8]) -> io::Result<u64> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    // from_str_radix would take a sign too.
    let hex = std::str::from_utf8(digits)
        .ok()
        .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex.and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or_else(|| broken("a chunk size is not a number"))
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> Head {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        Head {
            status: StatusCode::from_u16(status).unwrap(),
            reason: None,
            is_http_10: false,
            fields: fields.collect(),
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let check = |fields: &[(&'static str, &'static str)], expected| {
            assert_eq!(framing(&head(401, fields)), expected, "{fields:?}");
        };
        check(&[], Ok(Framing::UntilClose));
        check(&[("content-length", "12")], Ok(Framing::Length(12)));
        check(
            &[("transfer-encoding", "Chunked")],
            Ok(Framing::Chunked(Chunk::Size)),
        );
        check(&[("content-length", "+12")], Err(Reject::BadAnswer));
        check(
            &[("content-length", "1"), ("content-length", "1")],
            Err(Reject::BadAnswer),
        );
        check(
            &[("content-length", "1"), ("transfer-encoding", "chunked")],
            Err(Reject::BadAnswer),
        );
        check(
            &[("transfer-encoding", "gzip, chunked")],
            Err(Reject::BadAnswer),
        );
        check(&[("transfer-encoding", "")], Err(Reject::BadAnswer));
        assert_eq!(
            framing(&head(204, &[("content-length", "12")])),
            Ok(Framing::Length(0))
        );
    }

    #[test]
    fn chunk_sizes_are_plain_hexadecimal() {
        assert_eq!(chunk_size(b"1A;name=value").ok(), Some(26));
        for bad in ["", "+1", "-1", "0x1", "1 1", "11111111111111111"] {
            assert!(chunk_size(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
