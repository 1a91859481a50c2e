//! What is wrong with a document, as one line: where, what, and how to mend it.
//!
//! The steps that decoders leave behind become a path as people write it, Rust's names become words of YAML, and the mistakes that
//! YAML invites get their mend. What a decoder says repeats the value that it stumbled over; where that may be a private key, or
//! is too long, it is left out here.

use std::fmt;

use serde_path_to_error::Segment;

use super::node::{Content, Node, Step};
use crate::quoting::may_quote;

/// What is said of a value whose text cannot be cut out of the decoder's words.
const LEFT_OUT: &str = "a value of the wrong form (left out, because it may hold a private key)";

/// Whether errors may repeat texts of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Those that are short and do not look like a key.
    Harmless,
    /// The file may hold a private key, and a slip may have moved it anywhere.
    Nothing,
}

/// One thing that is wrong with a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) document: usize,
    pub(super) line: Option<usize>,
    pub(super) field: String,
    pub(super) what: String,
    pub(super) mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.what)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

/// What the decoder says of the value at `steps`, and the mend for the mistakes that YAML invites.
pub(super) fn type_problem(
    message: &str,
    steps: &[Step],
    found: &Node,
    quoting: Quoting,
) -> (String, &'static str) {
    if found.content == Content::Null && !message.starts_with("missing field") {
        return ("no value".to_owned(), "write one, or remove the field");
    }
    let message = quoted(message, found, quoting);
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((&message, ""));
    let mend = mend(what, expected, steps, &found.content);
    let what = match in_words(expected) {
        "" => what.to_owned(),
        expected => format!("{what}, expected {expected}"),
    };
    (what, mend)
}

fn mend(what: &str, expected: &str, steps: &[Step], found: &Content) -> &'static str {
    const NUMBERS: [&str; 8] = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"];
    let scalar = matches!(
        found,
        Content::Text(_) | Content::Number(_) | Content::Bool(_)
    );
    let duration = steps.contains(&Step::Key("timeouts".to_owned()));
    match (expected, found) {
        (number, Content::Text(text))
            if NUMBERS.contains(&number) && text.parse::<i64>().is_ok() =>
        {
            "write the number without quotes"
        }
        (number, _) if NUMBERS.contains(&number) => "write a whole number",
        ("a boolean", Content::Text(_)) => "write true or false, without quotes",
        ("a string", Content::Number(_)) if duration => "write it with its unit, such as 60s",
        ("a string", Content::Number(_) | Content::Bool(_)) => "put the value in quotes",
        ("a sequence", Content::Map(_)) => "begin each entry with `- `",
        ("a sequence", _) if scalar => "write a list: put it in [ ], or behind `- `",
        ("struct RoutePath", _) if scalar => "write { value: /chat }",
        ("struct CertificateRef", _) if scalar => "write { name: chat-tls }",
        ("struct BackendRef", _) if scalar => "write { name: chat, port: 80 }",
        (fields, _) if scalar && is_type(fields) => {
            "write its fields below it, each as name: value"
        }
        _ if what.starts_with("missing field") => "add it",
        _ if what.starts_with("unknown variant") => "write one of those",
        _ => "",
    }
}

/// Rust's names for what belongs there, in words of YAML.
fn in_words(expected: &str) -> &str {
    match expected {
        "string or map" => "one word",
        fields if is_type(fields) => "a map",
        other => other,
    }
}

/// `struct RoutePath`, and for the types of Kubernetes `ServicePort`.
fn is_type(expected: &str) -> bool {
    expected.starts_with("struct ")
        || (expected.starts_with(|c: char| c.is_ascii_uppercase())
            && expected.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// The decoder's words; the text that they repeat is left out unless it is harmless.
fn quoted(message: &str, found: &Node, quoting: Quoting) -> String {
    let Content::Text(text) = &found.content else {
        // Where no text is, these repeat none. What stands in quotes nevertheless is from below.
        const OWN: [&str; 4] = [
            "invalid type: ",
            "invalid value: ",
            "invalid length ",
            "missing field ",
        ];
        let own = OWN.iter().any(|form| message.starts_with(form)) && !message.contains('"');
        return if own { message } else { LEFT_OUT }.to_owned();
    };
    if quoting == Quoting::Harmless && may_quote(text) {
        return message.to_owned();
    }
    // Only at the places where it is known to stand: a key may hold any other words, even these.
    let escaped = format!("{:?}", text.as_str());
    let variant = format!("{}`", text.as_str());
    let places = [
        ("invalid type: string ", &escaped, "invalid type: a string"),
        (
            "invalid value: string ",
            &escaped,
            "invalid value: a string",
        ),
        ("unknown variant `", &variant, "unknown variant"),
        ("", &escaped, "a string that"),
    ];
    let rest = places.iter().find_map(|(before, text, instead)| {
        let rest = message.strip_prefix(before)?.strip_prefix(text.as_str())?;
        Some(format!("{instead}{rest}"))
    });
    rest.unwrap_or_else(|| LEFT_OUT.to_owned())
}

pub(super) fn is_well_known(step: &Step) -> bool {
    const FIELDS: [&str; 12] = [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "type",
        "data",
        "stringData",
        "tls.crt",
        "tls.key",
    ];
    match step {
        Step::Key(key) => FIELDS.contains(&key.as_str()),
        Step::Index(_) => true,
    }
}

pub(super) fn tracked_steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

pub(super) fn ignored_steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = ignored_steps(parent);
    steps.extend(step);
    steps
}

/// `spec.rules[0].name`, and `data[tls.key]` for a key that is not a plain word.
pub(super) fn display(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.extend(["[", &index.to_string(), "]"]),
            Step::Key(key) if !may_quote(key) => text.push_str("[a key that is left out]"),
            Step::Key(key) if key.contains(['.', '/']) => text.extend(["[", key, "]"]),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}
