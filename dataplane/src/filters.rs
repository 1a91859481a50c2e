//! What a rule changes of its requests and answers (Gateway API `HTTPRouteFilter`).
//!
//! In: a judged request and the rule that took it. Out: the target and the fields that its backend gets, the fields that its client
//! gets, or the redirect that the rule answers by itself. Names and values were checked when the table was made.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue, LOCATION, TRAILER};
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Uri};
use route_table::{Filters, HeaderModifier, Matched, PathModifier, Redirect, RedirectScheme};

use crate::client::Client;
use crate::fields::Scheme;
use crate::forward::{Body, empty};
use crate::handshake::tokens;
use crate::reject::Reject;
use crate::upstream;

/// The redirect that the rule answers with, if it has one. The connection closes, as after every answer of the proxy to a handshake.
///
/// # Errors
/// [`Reject::Target`] if the new address cannot be written.
pub(crate) fn redirect(
    matched: &Matched<'_>,
    target: &Uri,
    client: &Client,
) -> Result<Option<Response<Body>>, Reject> {
    let Some(redirect) = &matched.rule.filters.redirect else {
        return Ok(None);
    };
    let location = location(redirect, matched.rule.prefix(), target, client)?;
    let mut response = Response::new(empty());
    *response.status_mut() =
        StatusCode::from_u16(redirect.status.code()).map_err(|_| Reject::Target)?;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(Some(response))
}

/// Without a scheme of its own the redirect stays on the port that the client asked at, which is the listener's as it sees it;
/// with one it goes to that scheme's port (Gateway API `HTTPRequestRedirectFilter.port`).
fn location(
    redirect: &Redirect,
    prefix: Option<&str>,
    target: &Uri,
    client: &Client,
) -> Result<HeaderValue, Reject> {
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => Some(port.get()),
        (None, Some(_)) => None,
        (None, None) => Some(client.host_port()),
    };
    let scheme = redirect.scheme.unwrap_or(match client.scheme() {
        Scheme::Http => RedirectScheme::Http,
        Scheme::Https => RedirectScheme::Https,
    });
    let port = port.filter(|port| *port != scheme.port());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let hostname = redirect.hostname.as_ref().map(ToString::to_string);
    let host = hostname.or_else(|| client.host()).ok_or(Reject::Host)?;
    let target = match &redirect.path {
        Some(path) => modified(path, prefix, target)?,
        None => upstream::origin_form(target).into_owned(),
    };
    let location = format!("{}://{host}{port}{target}", scheme.as_str());
    HeaderValue::from_bytes(location.as_bytes()).map_err(|_| Reject::Target)
}

/// The target for the backend, if the rule rewrites it: in origin-form, with the client's query.
///
/// # Errors
/// [`Reject::Target`] if it is longer than a target can be.
pub(crate) fn target(matched: &Matched<'_>, asked: &Uri) -> Result<Option<Uri>, Reject> {
    let Some(path) = &matched.rule.filters.rewrite.path else {
        return Ok(None);
    };
    let target = modified(path, matched.rule.prefix(), asked)?;
    let target = PathAndQuery::try_from(target).map_err(|_| Reject::Target)?;
    Ok(Some(Uri::from(target)))
}

/// Path and query after a change of the path. Neither what is put in nor what stays holds dot segments: the one was checked with
/// the route, the other with the request, and they meet between two elements.
fn modified(path: &PathModifier, prefix: Option<&str>, asked: &Uri) -> Result<String, Reject> {
    let mut target = path.apply(asked.path(), prefix).ok_or(Reject::NoRule)?;
    if let Some(query) = asked.query() {
        target.push('?');
        target.push_str(query);
    }
    Ok(target)
}

/// Changes the fields that the backend gets, after all that the proxy itself does with them.
pub(crate) fn to_backend(headers: &mut HeaderMap, filters: &Filters) {
    let hostname = filters.rewrite.hostname.as_ref();
    // A hostname is always a valid value.
    if let Some(host) = hostname.and_then(|name| HeaderValue::from_str(name.as_str()).ok()) {
        headers.insert(HOST, host);
    }
    filters.request_headers.apply_to_request(headers);
}

/// Changes the fields of a backend's answer, of whatever kind.
pub(crate) fn to_client<B>(response: &mut Response<B>, filters: &Filters) {
    filters.response_headers.apply(response.headers_mut());
    withhold_trailers(response.headers_mut(), &filters.response_headers);
}

/// Takes back the announcement of trailers that a filter sets or removes, without which they do not pass: a message must not bring at
/// its end what was taken from its head.
pub(crate) fn withhold_trailers(headers: &mut HeaderMap, changes: &HeaderModifier) {
    let announced = tokens(headers, &TRAILER);
    let kept = announced.filter(|name| !changes.replaces(name));
    let kept = kept.collect::<Vec<_>>().join(", ");
    match HeaderValue::try_from(kept) {
        Ok(kept) if !kept.is_empty() => {
            headers.insert(TRAILER, kept);
        }
        Ok(_) | Err(_) => {
            headers.remove(TRAILER);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use route_table::{Hostname, RedirectStatus};

    use super::*;

    const NOTHING: Redirect = Redirect {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        status: RedirectStatus::Found,
    };

    #[track_caller]
    fn check(redirect: &Redirect, host: &'static str, target: &str, expected: &str) {
        check_told(redirect, &[("host", host)], target, expected);
    }

    /// With these fields from a proxy that is trusted.
    #[track_caller]
    fn check_told(
        redirect: &Redirect,
        sent: &[(&'static str, &'static str)],
        target: &str,
        expected: &str,
    ) {
        let sent: HeaderMap = sent
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let peer = ([10, 0, 0, 1], 40_000).into();
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = Client::judge(peer, Scheme::Https, &sent, &trusted);
        let location = location(redirect, Some("/chat"), &target.parse().unwrap(), &client);
        assert_eq!(location.unwrap(), expected);
    }

    #[test]
    fn it_stays_where_a_trusted_proxy_says_that_the_client_asked() {
        let path = Redirect {
            path: Some(PathModifier::full("/new").unwrap()),
            ..NOTHING
        };
        let host = ("host", "Inner.example.com.:8080");
        let told = |name, value| [host, (name, value)];
        let plain = told("x-forwarded-proto", "http");
        check_told(&path, &plain, "/a", "http://inner.example.com:8080/new");
        let named = told("x-forwarded-host", "shop.example.com");
        check_told(&path, &named, "/a", "https://shop.example.com/new");
        let address = told("x-forwarded-host", "[2001:db8::9]:444");
        check_told(&path, &address, "/a", "https://[2001:db8::9]:444/new");
        let port = told("x-forwarded-port", "443");
        check_told(&path, &port, "/a", "https://inner.example.com/new");
    }

    #[test]
    fn what_is_not_said_stays() {
        let host = "chat.example.com";
        let other = Redirect {
            hostname: Some(Hostname::parse("other.example.com").unwrap()),
            ..NOTHING
        };
        check(&other, host, "/a?b", "https://other.example.com/a?b");
        check(
            &other,
            "chat.example.com:8443",
            "/",
            "https://other.example.com:8443/",
        );
        check(
            &other,
            "chat.example.com:443",
            "/",
            "https://other.example.com/",
        );
        check(
            &other,
            host,
            "http://chat.example.com?x",
            "https://other.example.com/?x",
        );
        let http = Redirect {
            scheme: Some(RedirectScheme::Http),
            ..NOTHING
        };
        check(
            &http,
            "chat.example.com:8443",
            "/",
            "http://chat.example.com/",
        );
        let port = Redirect {
            port: NonZeroU16::new(80),
            ..http.clone()
        };
        check(&port, host, "/", "http://chat.example.com/");
        let port = Redirect {
            port: NonZeroU16::new(443),
            ..http
        };
        check(&port, host, "/", "http://chat.example.com:443/");
        let path = Redirect {
            path: Some(PathModifier::prefix("/v2").unwrap()),
            ..NOTHING
        };
        check(
            &path,
            host,
            "/chat/a%20b?c=%2F",
            "https://chat.example.com/v2/a%20b?c=%2F",
        );
        let path = Redirect {
            path: Some(PathModifier::full("/gone").unwrap()),
            ..NOTHING
        };
        check(&path, host, "/chat/a?c", "https://chat.example.com/gone?c");
    }
}
