//! Filters for the tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn field(name: &str, value: &str) -> HeaderField {
    HeaderField {
        name: FieldName::parse(name).unwrap(),
        value: FieldValue::parse(value).unwrap(),
    }
}

fn hostname() -> Option<Hostname> {
    Hostname::parse("upstream.example.net").ok()
}

/// Every field of every filter. No rule has all of them; nothing here depends on that.
pub(crate) fn every() -> Filters {
    let modifier = HeaderModifier {
        set: vec![field("x-env", "beta")],
        add: vec![field("cookie", "a=b; c=d")],
        remove: vec![FieldName::parse("x-gone").unwrap()],
    };
    Filters {
        request_headers: modifier.clone(),
        response_headers: modifier,
        rewrite: Rewrite {
            hostname: hostname(),
            path: PathModifier::full("/x").ok(),
        },
        redirect: Some(Redirect {
            scheme: Some(RedirectScheme::Https),
            hostname: hostname(),
            port: NonZeroU16::new(8443),
            path: PathModifier::full("/x").ok(),
            status: RedirectStatus::PermanentRedirect,
        }),
    }
}

fn modifier() -> impl Strategy<Value = HeaderModifier> {
    let name = || select(vec!["x-a", "x-b", "cookie"]);
    let written = move || {
        vec(
            (name(), "[!-~]{1,8}").prop_map(|(name, value)| field(name, &value)),
            0..3,
        )
    };
    let remove = vec(
        name().prop_map(|name| FieldName::parse(name).unwrap()),
        0..3,
    );
    (written(), written(), remove).prop_map(|(set, add, remove)| HeaderModifier {
        set,
        add,
        remove,
    })
}

fn path() -> impl Strategy<Value = Option<PathModifier>> {
    let path = prop_oneof![
        select(vec!["/", "/a", "/a/b/"]).prop_map(|value| PathModifier::full(value).unwrap()),
        select(vec!["", "/", "/a"]).prop_map(|value| PathModifier::prefix(value).unwrap()),
    ];
    option::of(path)
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    (any::<bool>(), path()).prop_map(|(named, path)| Rewrite {
        hostname: hostname().filter(|_| named),
        path,
    })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = option::of(select(vec![RedirectScheme::Http, RedirectScheme::Https]));
    let status = select(vec![301, 302, 303, 307, 308]);
    let parts = (scheme, any::<bool>(), any::<u16>(), path(), status);
    parts.prop_map(|(scheme, named, port, path, status)| Redirect {
        scheme,
        hostname: hostname().filter(|_| named),
        port: NonZeroU16::new(port),
        path,
        status: RedirectStatus::from_code(status).unwrap(),
    })
}

pub(crate) fn any_filters() -> impl Strategy<Value = Filters> {
    let parts = (modifier(), modifier(), rewrite(), option::of(redirect()));
    parts.prop_map(
        |(request_headers, response_headers, rewrite, redirect)| Filters {
            request_headers,
            response_headers,
            rewrite,
            redirect,
        },
    )
}
