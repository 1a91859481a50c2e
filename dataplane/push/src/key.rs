//! Keys as they travel: `route/NAMESPACE/NAME`, `backend/NAMESPACE/SERVICE/PORT`, `external/NAMESPACE/NAME`,
//! `certificate/NAMESPACE/SECRET`.
//!
//! Text rather than a message, so that both sides sort and hash the same bytes, also for a kind that one of them does not know.
//! Names of Kubernetes objects hold no slash.

use std::num::NonZeroU16;
use std::sync::Arc;

use route_table::{BackendKey, CertificateKey, ExternalKey, ResourceKey, RouteKey};

/// Longest name of a Kubernetes object (a DNS subdomain).
pub(crate) const MAX_NAME_BYTES: usize = 253;

/// The key as it travels.
pub(crate) fn key_text(key: &ResourceKey) -> String {
    match key {
        ResourceKey::Route(RouteKey { namespace, name }) => format!("route/{namespace}/{name}"),
        ResourceKey::Backend(BackendKey {
            namespace,
            service,
            port,
        }) => format!("backend/{namespace}/{service}/{port}"),
        ResourceKey::External(ExternalKey { namespace, name }) => {
            format!("external/{namespace}/{name}")
        }
        ResourceKey::Certificate(CertificateKey { namespace, secret }) => {
            format!("certificate/{namespace}/{secret}")
        }
    }
}

/// The resource that a key names; nothing if the kind is unknown or a name is not one.
pub fn parse_key(text: &str) -> Option<ResourceKey> {
    let parts = text.split('/').collect::<Vec<_>>();
    match parts[..] {
        ["route", namespace, route] => Some(ResourceKey::Route(RouteKey {
            namespace: name(namespace)?,
            name: name(route)?,
        })),
        ["backend", namespace, service, port_text] => Some(ResourceKey::Backend(BackendKey {
            namespace: name(namespace)?,
            service: name(service)?,
            port: port(port_text)?,
        })),
        ["external", namespace, external] => Some(ResourceKey::External(ExternalKey {
            namespace: name(namespace)?,
            name: name(external)?,
        })),
        ["certificate", namespace, secret] => Some(ResourceKey::Certificate(CertificateKey {
            namespace: name(namespace)?,
            secret: name(secret)?,
        })),
        _ => None,
    }
}

/// One spelling a port: `080` and `+80` would be other keys for the same backend.
fn port(text: &str) -> Option<NonZeroU16> {
    let port = text.parse::<NonZeroU16>().ok()?;
    (port.to_string() == text).then_some(port)
}

/// A name of a Kubernetes object, or of a rule.
pub(crate) fn name(text: &str) -> Option<Arc<str>> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (text.len() <= MAX_NAME_BYTES && text.split('.').all(label)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_as_written() {
        for text in [
            "route/default/chat",
            "backend/default/chat/8282",
            "external/default/inner",
            "certificate/a-b/chat.tls",
        ] {
            let key = parse_key(text).unwrap();
            assert_eq!(key_text(&key), text);
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in [
            "",
            "route",
            "route/default",
            "route/default/chat/x",
            "route//chat",
            "route/Default/chat",
            "route/default/a b",
            "route/default/-a",
            "route/default/a..b",
            "backend/default/chat",
            "backend/default/chat/0",
            "backend/default/chat/080",
            "backend/default/chat/+80",
            "backend/default/chat/65536",
            "consumer/default/chat",
        ] {
            assert_eq!(parse_key(text), None, "{text}");
        }
        assert_eq!(parse_key(&format!("route/a/{}", "b".repeat(254))), None);
    }
}
