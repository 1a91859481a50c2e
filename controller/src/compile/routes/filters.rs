//! What a rule changes of requests and answers, field by field.

use std::num::NonZeroU16;
use std::sync::Arc;

use crds::{
    FilterType, MAX_FILTERS, MAX_HEADER_FIELDS, PathModifierType, PathType, RouteFilter, RouteRule,
};
use route_table::{
    FieldName, FieldValue, Filters, HeaderField, HeaderModifier, Hostname, PathModifier, Redirect,
    RedirectScheme, RedirectStatus, Rewrite,
};

use super::forms::shown;
use crate::compile::draft::Draft;

/// Whether the rule answers by itself, and so needs no backend.
pub(super) fn redirects(rule: &RouteRule) -> bool {
    let mut filters = rule.filters.iter();
    filters.any(|filter| filter.filter_type == FilterType::RequestRedirect)
}

/// Reads `filters`; `field` is the rule's place in the spec.
pub(super) fn read_filters(draft: &mut Draft, field: &str, rule: &RouteRule) -> Arc<Filters> {
    let mut filters = Filters::default();
    let place = format!("{field}.filters");
    if rule.filters.len() > MAX_FILTERS {
        draft.bounded(&place, &rule.filters, MAX_FILTERS);
        return filters.into();
    }
    for (index, filter) in rule.filters.iter().enumerate() {
        let place = format!("{place}[{index}]");
        let earlier = rule.filters.get(..index).unwrap_or_default();
        if earlier
            .iter()
            .any(|other| other.filter_type == filter.filter_type)
        {
            draft.refuse(
                &place,
                "is of a type that an earlier filter has; put the changes of one type into one filter",
            );
        }
        read_filter(draft, &place, filter, &mut filters);
    }
    if redirects(rule) {
        if rule
            .filters
            .iter()
            .any(|filter| filter.filter_type == FilterType::UrlRewrite)
        {
            draft.refuse(
                &place,
                "must not hold URLRewrite beside RequestRedirect, which has a path and a hostname of its own",
            );
        }
        if !rule.backend_refs.is_empty() {
            draft.refuse(
                &format!("{field}.backendRefs"),
                "must be left out beside a filter RequestRedirect, which answers by itself",
            );
        }
    }
    let redirected = filters
        .redirect
        .as_ref()
        .and_then(|redirect| redirect.path.as_ref());
    let modifiers = [filters.rewrite.path.as_ref(), redirected];
    let replaces_prefix = |path: &PathModifier| matches!(path, PathModifier::Prefix(_));
    let has_one_prefix = match &rule.matches[..] {
        [only] => only.path.path_type == PathType::PathPrefix,
        _ => false,
    };
    if modifiers.into_iter().flatten().any(replaces_prefix) && !has_one_prefix {
        draft.refuse(
            &place,
            "must not use ReplacePrefixMatch unless the rule has exactly one match, of type PathPrefix; give each prefix a rule of its own",
        );
    }
    filters.into()
}

fn read_filter(draft: &mut Draft, field: &str, filter: &RouteFilter, filters: &mut Filters) {
    let RouteFilter {
        filter_type,
        request_header_modifier,
        response_header_modifier,
        url_rewrite,
        request_redirect,
    } = filter;
    for (name, own, given) in [
        (
            "requestHeaderModifier",
            FilterType::RequestHeaderModifier,
            request_header_modifier.is_some(),
        ),
        (
            "responseHeaderModifier",
            FilterType::ResponseHeaderModifier,
            response_header_modifier.is_some(),
        ),
        ("urlRewrite", FilterType::UrlRewrite, url_rewrite.is_some()),
        (
            "requestRedirect",
            FilterType::RequestRedirect,
            request_redirect.is_some(),
        ),
    ] {
        if (*filter_type == own) != given {
            draft.refuse(
                &format!("{field}.{name}"),
                "must be given for the type of its name, and for no other type",
            );
        }
    }
    if let Some(modifier) = request_header_modifier {
        let field = format!("{field}.requestHeaderModifier");
        filters.request_headers = read_modifier(draft, &field, modifier);
    }
    if let Some(modifier) = response_header_modifier {
        let field = format!("{field}.responseHeaderModifier");
        filters.response_headers = read_modifier(draft, &field, modifier);
    }
    if let Some(rewrite) = url_rewrite {
        filters.rewrite = read_rewrite(draft, &format!("{field}.urlRewrite"), rewrite);
    }
    if let Some(redirect) = request_redirect {
        filters.redirect = Some(read_redirect(
            draft,
            &format!("{field}.requestRedirect"),
            redirect,
        ));
    }
}

fn read_modifier(
    draft: &mut Draft,
    field: &str,
    modifier: &crds::HeaderModifier,
) -> HeaderModifier {
    let crds::HeaderModifier { set, add, remove } = modifier;
    let read = HeaderModifier {
        set: read_fields(draft, &format!("{field}.set"), set),
        add: read_fields(draft, &format!("{field}.add"), add),
        remove: at_most(draft, &format!("{field}.remove"), remove)
            .iter()
            .enumerate()
            .filter_map(|(index, name)| read_name(draft, &format!("{field}.remove[{index}]"), name))
            .collect(),
    };
    if let Some(name) = read.repeated() {
        let text = format!(
            "{} stands in it twice; name each field once over set, add and remove, whatever its case",
            shown(name.as_str())
        );
        draft.refuse(field, &text);
    }
    read
}

fn read_fields(draft: &mut Draft, field: &str, listed: &[crds::HeaderField]) -> Vec<HeaderField> {
    let mut fields = Vec::new();
    for (index, listed) in at_most(draft, field, listed).iter().enumerate() {
        let crds::HeaderField { name, value } = listed;
        let field = format!("{field}[{index}]");
        let name = read_name(draft, &format!("{field}.name"), name);
        let value = match FieldValue::parse(value) {
            Ok(value) => Some(value),
            Err(error) => {
                // It is not repeated: it may be a credential.
                draft.refuse(&format!("{field}.value"), &error.to_string());
                None
            }
        };
        fields.extend(
            name.zip(value)
                .map(|(name, value)| HeaderField { name, value }),
        );
    }
    fields
}

fn read_name(draft: &mut Draft, field: &str, name: &str) -> Option<FieldName> {
    match FieldName::parse(name) {
        Ok(name) => Some(name),
        Err(error) => {
            draft.refuse(field, &format!("{} {error}", shown(name)));
            None
        }
    }
}

/// A list that may be empty.
fn at_most<'a, T>(draft: &mut Draft, field: &str, listed: &'a [T]) -> &'a [T] {
    if listed.is_empty() {
        return listed;
    }
    draft.bounded(field, listed, MAX_HEADER_FIELDS)
}

fn read_rewrite(draft: &mut Draft, field: &str, rewrite: &crds::UrlRewrite) -> Rewrite {
    let crds::UrlRewrite { hostname, path } = rewrite;
    if hostname.is_none() && path.is_none() {
        draft.refuse(field, "must say what is rewritten: hostname or path");
    }
    Rewrite {
        hostname: read_hostname(draft, field, hostname.as_deref()),
        path: read_path(draft, field, path.as_ref()),
    }
}

fn read_redirect(draft: &mut Draft, field: &str, redirect: &crds::RequestRedirect) -> Redirect {
    let crds::RequestRedirect {
        scheme,
        hostname,
        port,
        path,
        status_code,
    } = redirect;
    if scheme.is_none() && hostname.is_none() && port.is_none() && path.is_none() {
        draft.refuse(
            field,
            "must say where it leads: scheme, hostname, port or path; a redirect to itself never ends",
        );
    }
    let number = port.and_then(|port| u16::try_from(port).ok().and_then(NonZeroU16::new));
    if let (Some(port), None) = (port, number) {
        draft.refuse(
            &format!("{field}.port"),
            &format!("{port} must be from 1 to 65535"),
        );
    }
    let status = u32::try_from(*status_code)
        .ok()
        .and_then(RedirectStatus::from_code);
    if status.is_none() {
        draft.refuse(
            &format!("{field}.statusCode"),
            &format!("{status_code} must be 301, 302, 303, 307 or 308"),
        );
    }
    Redirect {
        scheme: scheme.map(|scheme| match scheme {
            crds::RedirectScheme::Http => RedirectScheme::Http,
            crds::RedirectScheme::Https => RedirectScheme::Https,
        }),
        hostname: read_hostname(draft, field, hostname.as_deref()),
        port: number,
        path: read_path(draft, field, path.as_ref()),
        status: status.unwrap_or(RedirectStatus::Found),
    }
}

fn read_hostname(draft: &mut Draft, field: &str, hostname: Option<&str>) -> Option<Hostname> {
    let text = hostname?;
    let problem = match Hostname::parse(text) {
        Ok(name) if name.as_str() == text => return Some(name),
        Ok(name) => format!("must be written {name}"),
        Err(error) => error.to_string(),
    };
    draft.refuse(
        &format!("{field}.hostname"),
        &format!("{} {problem}", shown(text)),
    );
    None
}

fn read_path(
    draft: &mut Draft,
    field: &str,
    path: Option<&crds::PathModifier>,
) -> Option<PathModifier> {
    let crds::PathModifier {
        modifier_type,
        replace_full_path,
        replace_prefix_match,
    } = path?;
    let field = format!("{field}.path");
    let (name, value, other, parsed) = match modifier_type {
        PathModifierType::ReplaceFullPath => (
            "replaceFullPath",
            replace_full_path,
            replace_prefix_match,
            replace_full_path.as_deref().map(PathModifier::full),
        ),
        PathModifierType::ReplacePrefixMatch => (
            "replacePrefixMatch",
            replace_prefix_match,
            replace_full_path,
            replace_prefix_match.as_deref().map(PathModifier::prefix),
        ),
    };
    if value.is_none() || other.is_some() {
        draft.refuse(
            &field,
            &format!("must have {name} and no other value for its type"),
        );
    }
    match parsed? {
        Ok(path) => Some(path),
        Err(error) => {
            let shown = shown(value.as_deref().unwrap_or_default());
            draft.refuse(&format!("{field}.{name}"), &format!("{shown} {error}"));
            None
        }
    }
}
