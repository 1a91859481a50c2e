//! What names and other texts of a user may look like, and how a finding repeats them.

use std::sync::Arc;

use crds::name::{is_label, is_subdomain};

use crate::compile::draft::Draft;

/// Most characters of a user's text that a finding repeats.
const MAX_SHOWN: usize = 64;

/// The namespace that a reference leads to: the route's own if it names none.
pub(super) fn namespace_of(draft: &mut Draft, field: &str, named: Option<&str>) -> Arc<str> {
    let Some(named) = named else {
        return draft.key.namespace.clone();
    };
    check_name(draft, &format!("{field}.namespace"), named, Form::Namespace);
    named.into()
}

/// What a name may look like, as in the schema: names go into logs, metrics and conditions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Object,
    Namespace,
    Service,
}

pub(super) fn check_name(draft: &mut Draft, field: &str, name: &str, form: Form) {
    let (fits, words) = match form {
        Form::Object => (
            is_subdomain(name),
            "must hold only lower case letters, digits, '-' and '.', and begin and end with a letter or digit",
        ),
        Form::Namespace => (
            is_label(name),
            "must hold only lower case letters, digits and '-', at most 63, and begin and end with a letter or digit",
        ),
        Form::Service => (
            is_label(name),
            "must be the name of a Service or ExternalBackend: at most 63 lower case letters, digits and '-', a letter or digit at both ends; a namespace goes into the field of that name",
        ),
    };
    if !fits {
        draft.refuse(field, &format!("{} {words}", shown(name)));
    }
}

/// A user's text in quotes, without line ends and not at any length.
pub(super) fn shown(text: &str) -> String {
    // Somebody put a PEM block where a name belongs: it may be a key, and findings are printed and stored.
    if text.contains("-----") || text.contains('\n') {
        return "the text".to_owned();
    }
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
