//! The matches of a rule: path, headers, query parameters and subprotocols, each checked as the schema checks it.

use std::collections::BTreeSet;

use crds::{
    MAX_CONDITIONS, MAX_MATCHES, MatchType, PathType, RouteHeaderMatch, RoutePath,
    RouteQueryParamMatch, RouteRule,
};
use route_table::{
    ConditionError, Conditions, HeaderMatch, PathMatch, QueryParamMatch, RouteMatch, Subprotocol,
};

use super::forms::shown;
use crate::compile::draft::Draft;

/// Reads the matches of a rule; `field` is the rule's place in the spec.
pub(super) fn read_matches(draft: &mut Draft, field: &str, rule: &RouteRule) -> Vec<RouteMatch> {
    let field = format!("{field}.matches");
    let mut matches = Vec::new();
    let listed = draft.bounded(&field, &rule.matches, MAX_MATCHES);
    for (index, listed) in listed.iter().enumerate() {
        let crds::RouteMatch {
            path,
            headers,
            query_params,
            subprotocols,
        } = listed;
        let field = format!("{field}[{index}]");
        let before = draft.findings.len();
        let path = read_path(draft, &format!("{field}.path.value"), path);
        let conditions = Conditions {
            headers: read_headers(draft, &format!("{field}.headers"), headers),
            query_params: read_params(draft, &format!("{field}.queryParams"), query_params),
            subprotocols: read_subprotocols(draft, &format!("{field}.subprotocols"), subprotocols),
        };
        // Part of a match would take more than was asked.
        if draft.findings.len() == before {
            matches.extend(path.map(|path| RouteMatch { path, conditions }));
        }
    }
    matches
}

fn read_path(draft: &mut Draft, field: &str, path: &RoutePath) -> Option<PathMatch> {
    let RoutePath { path_type, value } = path;
    let read = match path_type {
        PathType::Exact => PathMatch::exact(value),
        PathType::PathPrefix => PathMatch::prefix(value),
    };
    match read {
        Ok(path) => Some(path),
        Err(error) => {
            draft.refuse(field, &format!("{} {error}", shown(value)));
            None
        }
    }
}

fn read_headers(draft: &mut Draft, field: &str, listed: &[RouteHeaderMatch]) -> Vec<HeaderMatch> {
    let mut names = BTreeSet::new();
    read_each(draft, field, listed, |draft, field, header| {
        let RouteHeaderMatch {
            match_type: MatchType::Exact,
            name,
            value,
        } = header;
        // Gateway API would ignore the second one; half of what an author meant may be the dangerous half.
        if !names.insert(name.to_ascii_lowercase()) {
            refuse_twice(draft, &format!("{field}.name"), name);
        }
        let read = HeaderMatch::new(name, value);
        taken(draft, field, (name, value), read)
    })
}

fn read_params(
    draft: &mut Draft,
    field: &str,
    listed: &[RouteQueryParamMatch],
) -> Vec<QueryParamMatch> {
    let mut names = BTreeSet::new();
    read_each(draft, field, listed, |draft, field, param| {
        let RouteQueryParamMatch {
            match_type: MatchType::Exact,
            name,
            value,
        } = param;
        if !names.insert(name) {
            refuse_twice(draft, &format!("{field}.name"), name);
        }
        let read = QueryParamMatch::new(name, value);
        taken(draft, field, (name, value), read)
    })
}

fn read_subprotocols(draft: &mut Draft, field: &str, listed: &[String]) -> Vec<Subprotocol> {
    let mut names = BTreeSet::new();
    read_each(draft, field, listed, |draft, field, name| {
        if !names.insert(name) {
            refuse_twice(draft, field, name);
        }
        let read = Subprotocol::new(name);
        read.map_err(|error| draft.refuse(field, &format!("{} {error}", shown(name))))
            .ok()
    })
}

/// Reads a list that may be empty.
fn read_each<'a, T, R>(
    draft: &mut Draft,
    field: &str,
    listed: &'a [T],
    mut read: impl FnMut(&mut Draft, &str, &'a T) -> Option<R>,
) -> Vec<R> {
    if listed.is_empty() {
        return Vec::new();
    }
    let listed = draft.bounded(field, listed, MAX_CONDITIONS);
    let listed = listed.iter().enumerate();
    listed
        .filter_map(|(index, entry)| read(draft, &format!("{field}[{index}]"), entry))
        .collect()
}

/// What was read, or a finding at the field that is wrong: the name or the value.
fn taken<T>(
    draft: &mut Draft,
    field: &str,
    (name, value): (&str, &str),
    read: Result<T, ConditionError>,
) -> Option<T> {
    let error = match read {
        Ok(read) => return Some(read),
        Err(error) => error,
    };
    let (part, text) = match error {
        ConditionError::Name
        | ConditionError::Host
        | ConditionError::OneHop
        | ConditionError::Handshake
        | ConditionError::Forgeable => ("name", name),
        ConditionError::HeaderValue | ConditionError::QueryValue => ("value", value),
    };
    draft.refuse(
        &format!("{field}.{part}"),
        &format!("{} {error}", shown(text)),
    );
    None
}

fn refuse_twice(draft: &mut Draft, field: &str, name: &str) {
    draft.refuse(
        field,
        &format!("{} is listed twice; remove one", shown(name)),
    );
}
