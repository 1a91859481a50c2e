//! Filters of a rule -> messages -> filters, every field checked.

use std::num::NonZeroU16;

use route_table::{
    FieldName, FieldValue, Filters, HeaderField, HeaderModifier, Hostname, PathModifier, Redirect,
    RedirectScheme, RedirectStatus, Rewrite,
};

use crate::decode::{FieldProblem, Place, Result, bounded, list, port};
use crate::wire;
use crate::wire::filter::Filter as Kind;

/// The filters that do something, in the order of the message.
pub(crate) fn encode(filters: &Filters) -> Vec<wire::Filter> {
    let Filters {
        request_headers,
        response_headers,
        rewrite,
        redirect,
    } = filters;
    let changes = |modifier: &HeaderModifier| *modifier != HeaderModifier::default();
    let request =
        changes(request_headers).then(|| Kind::RequestHeaderModifier(modifier(request_headers)));
    let response =
        changes(response_headers).then(|| Kind::ResponseHeaderModifier(modifier(response_headers)));
    let rewrite = (*rewrite != Rewrite::default()).then(|| {
        let Rewrite { hostname, path } = rewrite;
        Kind::UrlRewrite(wire::UrlRewrite {
            hostname: name(hostname.as_ref()),
            path: path.as_ref().map(path_modifier),
        })
    });
    let redirect = redirect.as_ref().map(|redirect| {
        let Redirect {
            scheme,
            hostname,
            port,
            path,
            status,
        } = redirect;
        Kind::RequestRedirect(wire::RequestRedirect {
            scheme: scheme.map_or("", RedirectScheme::as_str).to_owned(),
            hostname: name(hostname.as_ref()),
            port: port.map_or(0, |port| port.get().into()),
            path: path.as_ref().map(path_modifier),
            status_code: status.code().into(),
        })
    });
    let kinds = [request, response, rewrite, redirect].into_iter().flatten();
    kinds
        .map(|kind| wire::Filter { filter: Some(kind) })
        .collect()
}

fn modifier(modifier: &HeaderModifier) -> wire::HeaderModifier {
    let HeaderModifier { set, add, remove } = modifier;
    let field = |HeaderField { name, value }: &HeaderField| wire::HeaderField {
        name: name.as_str().to_owned(),
        value: value.as_str().to_owned(),
    };
    wire::HeaderModifier {
        set: set.iter().map(field).collect(),
        add: add.iter().map(field).collect(),
        remove: remove.iter().map(|name| name.as_str().to_owned()).collect(),
    }
}

fn name(hostname: Option<&Hostname>) -> String {
    hostname.map(ToString::to_string).unwrap_or_default()
}

fn path_modifier(path: &PathModifier) -> wire::PathModifier {
    let path = match path {
        PathModifier::Full(value) => wire::path_modifier::Path::ReplaceFull(value.to_string()),
        PathModifier::Prefix(value) => wire::path_modifier::Path::ReplacePrefix(value.to_string()),
    };
    wire::PathModifier { path: Some(path) }
}

pub(crate) fn decode(place: &Place<'_>, messages: &[wire::Filter]) -> Result<Filters> {
    bounded(place, messages)?;
    let mut filters = Filters::default();
    let mut seen = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let place = place.at(index);
        let Some(kind) = &message.filter else {
            return Err(place.error(FieldProblem::Unknown));
        };
        let discriminant = std::mem::discriminant(kind);
        if seen.contains(&discriminant) {
            return Err(place.error(FieldProblem::Repeated));
        }
        seen.push(discriminant);
        match kind {
            Kind::RequestHeaderModifier(message) => {
                filters.request_headers = decode_modifier(&place, message)?;
            }
            Kind::ResponseHeaderModifier(message) => {
                filters.response_headers = decode_modifier(&place, message)?;
            }
            Kind::UrlRewrite(wire::UrlRewrite { hostname, path }) => {
                filters.rewrite = Rewrite {
                    hostname: decode_hostname(&place, hostname)?,
                    path: decode_path(&place, path.as_ref())?,
                };
            }
            Kind::RequestRedirect(message) => {
                filters.redirect = Some(decode_redirect(&place, message)?);
            }
        }
    }
    Ok(filters)
}

fn decode_modifier(place: &Place<'_>, message: &wire::HeaderModifier) -> Result<HeaderModifier> {
    let wire::HeaderModifier { set, add, remove } = message;
    Ok(HeaderModifier {
        set: list(place.field("set"), set, field)?,
        add: list(place.field("add"), add, field)?,
        remove: list(place.field("remove"), remove, field_name)?,
    })
}

fn field(place: &Place<'_>, message: &wire::HeaderField) -> Result<HeaderField> {
    let wire::HeaderField { name, value } = message;
    let wrong = |error| place.field("value").error(FieldProblem::Field(error));
    Ok(HeaderField {
        name: field_name(&place.field("name"), name)?,
        value: FieldValue::parse(value).map_err(wrong)?,
    })
}

#[expect(clippy::ptr_arg, reason = "it stands where a list of texts is read")]
fn field_name(place: &Place<'_>, name: &String) -> Result<FieldName> {
    FieldName::parse(name).map_err(|error| place.error(FieldProblem::Field(error)))
}

fn decode_redirect(place: &Place<'_>, message: &wire::RequestRedirect) -> Result<Redirect> {
    let wire::RequestRedirect {
        scheme,
        hostname,
        port: port_number,
        path,
        status_code,
    } = message;
    let scheme = match &**scheme {
        "" => None,
        "http" => Some(RedirectScheme::Http),
        "https" => Some(RedirectScheme::Https),
        _ => return Err(place.field("scheme").error(FieldProblem::Unknown)),
    };
    let port: Option<NonZeroU16> = match port_number {
        0 => None,
        number => Some(port(&place.field("port"), *number)?),
    };
    let status = RedirectStatus::from_code(*status_code);
    Ok(Redirect {
        scheme,
        hostname: decode_hostname(place, hostname)?,
        port,
        path: decode_path(place, path.as_ref())?,
        status: status.ok_or_else(|| place.field("status_code").error(FieldProblem::Unknown))?,
    })
}

fn decode_hostname(place: &Place<'_>, text: &str) -> Result<Option<Hostname>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |error| place.field("hostname").error(FieldProblem::Hostname(error));
    Hostname::parse(text).map(Some).map_err(wrong)
}

fn decode_path(
    place: &Place<'_>,
    message: Option<&wire::PathModifier>,
) -> Result<Option<PathModifier>> {
    let Some(wire::PathModifier { path }) = message else {
        return Ok(None);
    };
    let place = place.field("path");
    let parsed = match path {
        Some(wire::path_modifier::Path::ReplaceFull(value)) => PathModifier::full(value),
        Some(wire::path_modifier::Path::ReplacePrefix(value)) => PathModifier::prefix(value),
        None => return Err(place.error(FieldProblem::Unknown)),
    };
    parsed
        .map(Some)
        .map_err(|error| place.error(FieldProblem::Path(error)))
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
