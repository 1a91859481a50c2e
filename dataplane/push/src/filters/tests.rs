use route_table::{FieldError, HostnameError, PathError};

use super::*;

/// What every filter comes to after a change of the one of this index.
#[track_caller]
fn refuse(index: usize, change: impl Fn(&mut Kind), field: &str, problem: FieldProblem) {
    let mut sent = encode(&samples::every());
    change(sent[index].filter.as_mut().unwrap());
    let refused = decode(&Place::root("filters"), &sent).unwrap_err();
    assert_eq!((&*refused.field, refused.problem), (field, problem));
}

fn modifier(kind: &mut Kind) -> &mut wire::HeaderModifier {
    match kind {
        Kind::RequestHeaderModifier(modifier) | Kind::ResponseHeaderModifier(modifier) => modifier,
        Kind::UrlRewrite(_) | Kind::RequestRedirect(_) => panic!("another filter"),
    }
}

fn redirect(kind: &mut Kind) -> &mut wire::RequestRedirect {
    match kind {
        Kind::RequestRedirect(redirect) => redirect,
        _ => panic!("another filter"),
    }
}

/// A table is served as it comes: whoever sends it must not be able to end a line or to pretend to be the proxy.
#[test]
fn fields_are_checked_again_by_who_receives_them() {
    for (index, value) in [(0, "a\r\nHost: evil"), (1, "a\0")] {
        refuse(
            index,
            |kind| modifier(kind).set[0].value = value.into(),
            &format!("filters[{index}].set[0].value"),
            FieldProblem::Field(FieldError::Value),
        );
    }
    refuse(
        0,
        |kind| modifier(kind).add[0].name = "X-Forwarded-For".into(),
        "filters[0].add[0].name",
        FieldProblem::Field(FieldError::Reserved),
    );
    refuse(
        1,
        |kind| modifier(kind).remove[0] = "a b".into(),
        "filters[1].remove[0]",
        FieldProblem::Field(FieldError::Name),
    );
}

#[test]
fn rewrites_and_redirects_are_checked() {
    refuse(
        2,
        |kind| {
            *kind = Kind::UrlRewrite(wire::UrlRewrite {
                hostname: "a_b".into(),
                path: None,
            });
        },
        "filters[2].hostname",
        FieldProblem::Hostname(HostnameError::Character),
    );
    refuse(
        3,
        |kind| redirect(kind).path = Some(wire::PathModifier { path: None }),
        "filters[3].path",
        FieldProblem::Unknown,
    );
    let path = wire::path_modifier::Path::ReplacePrefix("/../x".into());
    refuse(
        3,
        |kind| {
            redirect(kind).path = Some(wire::PathModifier {
                path: Some(path.clone()),
            });
        },
        "filters[3].path",
        FieldProblem::Path(PathError::DotSegment),
    );
    refuse(
        3,
        |kind| redirect(kind).scheme = "gopher".into(),
        "filters[3].scheme",
        FieldProblem::Unknown,
    );
    refuse(
        3,
        |kind| redirect(kind).port = 65_536,
        "filters[3].port",
        FieldProblem::Port,
    );
    refuse(
        3,
        |kind| redirect(kind).status_code = 200,
        "filters[3].status_code",
        FieldProblem::Unknown,
    );
}

#[test]
fn each_kind_stands_once_and_is_known() {
    let mut sent = encode(&samples::every());
    sent[1] = sent[0].clone();
    let refused = decode(&Place::root("filters"), &sent).unwrap_err();
    assert_eq!(
        (&*refused.field, refused.problem),
        ("filters[1]", FieldProblem::Repeated)
    );
    let refused = decode(&Place::root("filters"), &[wire::Filter { filter: None }]).unwrap_err();
    assert_eq!(
        (&*refused.field, refused.problem),
        ("filters[0]", FieldProblem::Unknown)
    );
}
