//! What the plain listener does with a hostname that is served over TLS (`tls.plain`).
//!
//! In: the judged head of a request that came without TLS. Out: nothing where the host is served without TLS, a redirect to https,
//! or the [`Reject`]. It decides before any rule is looked up: no backend is contacted, and a path says nothing of what is routed.

use std::num::NonZeroU16;

use http::header::{CONNECTION, HeaderValue, LOCATION};
use http::{Response, StatusCode, Uri};
use route_table::{HostTls, Hostname, OnPlain, RouteTable};

use crate::forward::{Body, empty};
use crate::reject::Reject;
use crate::upstream;

/// The port that a URL with `https` means when it names none (RFC 9110 §4.2.2).
const HTTPS: u16 = 443;

/// The answer to a request without TLS, if it is not to be served.
///
/// # Errors
/// [`Reject::TlsRequired`] if the host refuses requests without TLS.
pub(crate) fn check(
    table: &RouteTable,
    hostname: Option<&Hostname>,
    target: &Uri,
    public_port: NonZeroU16,
) -> Result<Option<Response<Body>>, Reject> {
    let Some((name, host)) = hostname.and_then(|name| Some((name, table.host(name)?))) else {
        return Ok(None);
    };
    match host.tls() {
        HostTls::None
        | HostTls::Terminate {
            plain: OnPlain::Serve,
            ..
        } => Ok(None),
        HostTls::Terminate {
            plain: OnPlain::Redirect,
            ..
        } => to_https(name, target, public_port).map(Some),
        HostTls::Terminate {
            plain: OnPlain::Refuse,
            ..
        } => Err(Reject::TlsRequired),
    }
}

/// 308 keeps the method and the body (RFC 9110 §15.4.9). The connection closes: its client has nothing more to ask here, and what
/// follows an upgrade that was not made is not to be read as a request.
fn to_https(
    name: &Hostname,
    target: &Uri,
    public_port: NonZeroU16,
) -> Result<Response<Body>, Reject> {
    let port = match public_port.get() {
        HTTPS => String::new(),
        port => format!(":{port}"),
    };
    let location = format!("https://{name}{port}{}", upstream::origin_form(target));
    let location = HeaderValue::from_bytes(location.as_bytes()).map_err(|_| Reject::Target)?;
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_location(target: &str, port: u16, expected: &str) {
        let name = Hostname::parse("Chat.example.com.").unwrap();
        let target = target.parse().unwrap();
        let response = to_https(&name, &target, NonZeroU16::new(port).unwrap()).unwrap();
        assert_eq!(response.status(), 308);
        assert_eq!(response.headers()[LOCATION].as_bytes(), expected.as_bytes());
    }

    #[test]
    fn location_is_the_same_target_on_https() {
        check_location("/", 443, "https://chat.example.com/");
        check_location(
            "/a?b=%2F&c",
            8443,
            "https://chat.example.com:8443/a?b=%2F&c",
        );
        check_location(
            "//evil.example/",
            443,
            "https://chat.example.com//evil.example/",
        );
        check_location(
            "http://chat.example.com:80?x",
            443,
            "https://chat.example.com/?x",
        );
        check_location("/?", 443, "https://chat.example.com/?");
        check_location("/ü", 443, "https://chat.example.com/ü");
    }
}
