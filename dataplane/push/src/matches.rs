//! A match of a rule, both ways, and the features that its conditions require.
//!
//! A condition that is not understood admits more than was asked, and so each kind has a feature: a dataplane without it closes the whole
//! path instead.

use std::collections::BTreeSet;

use route_table::{
    Conditions, HeaderMatch, PathMatch, QueryParamMatch, Route, RouteMatch, Subprotocol,
};

use crate::decode::{FieldProblem, Place, Result, list};
use crate::wire;

/// Rules may ask for header fields.
pub(crate) const HEADERS: &str = "route/match-headers";
/// Rules may ask for query parameters.
pub(crate) const QUERY_PARAMS: &str = "route/match-query-params";
/// Rules may ask for subprotocols.
pub(crate) const SUBPROTOCOLS: &str = "route/match-subprotocols";

/// The features that the matches of a route require.
pub(crate) fn required(route: &Route) -> BTreeSet<&'static str> {
    let mut features = BTreeSet::new();
    for found in route.rules.iter().flat_map(|rule| &rule.matches) {
        let Conditions {
            headers,
            query_params,
            subprotocols,
        } = &found.conditions;
        let used = [
            (HEADERS, !headers.is_empty()),
            (QUERY_PARAMS, !query_params.is_empty()),
            (SUBPROTOCOLS, !subprotocols.is_empty()),
        ];
        let used = used.into_iter().filter(|(_, used)| *used);
        features.extend(used.map(|(feature, _)| feature));
    }
    features
}

pub(crate) fn encode(found: &RouteMatch) -> wire::RouteMatch {
    let RouteMatch {
        path,
        conditions:
            Conditions {
                headers,
                query_params,
                subprotocols,
            },
    } = found;
    let path = match path {
        PathMatch::Exact(value) => wire::route_match::Path::Exact(value.to_string()),
        // The root prefix is empty in the table; a path on the wire always begins with '/'.
        PathMatch::Prefix(value) if value.is_empty() => wire::route_match::Path::Prefix("/".into()),
        PathMatch::Prefix(value) => wire::route_match::Path::Prefix(value.to_string()),
    };
    let headers = headers.iter().map(|header| wire::HeaderMatch {
        name: header.name().to_owned(),
        value: header.value().to_owned(),
    });
    let query_params = query_params.iter().map(|param| wire::QueryParamMatch {
        name: param.name().to_owned(),
        value: param.value().to_owned(),
    });
    let subprotocols = subprotocols.iter().map(|name| name.name().to_owned());
    wire::RouteMatch {
        path: Some(path),
        headers: headers.collect(),
        query_params: query_params.collect(),
        subprotocols: subprotocols.collect(),
    }
}

pub(crate) fn decode(place: &Place<'_>, message: &wire::RouteMatch) -> Result<RouteMatch> {
    let wire::RouteMatch {
        path: _,
        headers,
        query_params,
        subprotocols,
    } = message;
    Ok(RouteMatch {
        path: path(place, message)?,
        conditions: Conditions {
            headers: list(place.field("headers"), headers, header)?,
            query_params: list(place.field("query_params"), query_params, query_param)?,
            subprotocols: list(place.field("subprotocols"), subprotocols, subprotocol)?,
        },
    })
}

/// A match in its closed form, which takes at least the requests that it should: the whole path, if its conditions cannot be read.
pub(crate) fn decode_closed(place: &Place<'_>, message: &wire::RouteMatch) -> Option<RouteMatch> {
    let whole = decode(place, message);
    whole
        .or_else(|_| path(place, message).map(RouteMatch::from))
        .ok()
}

fn path(place: &Place<'_>, message: &wire::RouteMatch) -> Result<PathMatch> {
    let parsed = match &message.path {
        Some(wire::route_match::Path::Exact(value)) => PathMatch::exact(value),
        Some(wire::route_match::Path::Prefix(value)) => PathMatch::prefix(value),
        None => return Err(place.field("path").error(FieldProblem::Unknown)),
    };
    parsed.map_err(|error| place.field("path").error(FieldProblem::Path(error)))
}

fn header(place: &Place<'_>, message: &wire::HeaderMatch) -> Result<HeaderMatch> {
    let wire::HeaderMatch { name, value } = message;
    HeaderMatch::new(name, value).map_err(|error| place.error(FieldProblem::Condition(error)))
}

fn query_param(place: &Place<'_>, message: &wire::QueryParamMatch) -> Result<QueryParamMatch> {
    let wire::QueryParamMatch { name, value } = message;
    QueryParamMatch::new(name, value).map_err(|error| place.error(FieldProblem::Condition(error)))
}

// A list of texts is a list of `String`s in prost.
#[expect(clippy::ptr_arg, reason = "`list` gives entries as they are stored")]
fn subprotocol(place: &Place<'_>, name: &String) -> Result<Subprotocol> {
    Subprotocol::new(name).map_err(|error| place.error(FieldProblem::Condition(error)))
}

#[cfg(test)]
mod tests;
