//! What is wrong with a document, as one line: where, what, and how to mend it.
//!
//! The steps that decoders leave behind become a path as people write it, and the mistakes that YAML invites get their mend. What
//! comes from the file is bounded and free of control characters.

use std::fmt;

use serde_path_to_error::Segment;

use super::node::{Content, Node, Step};

/// Longest part of an error that may come from the file, so that a slip cannot fill a terminal.
const MAX_QUOTED_CHARS: usize = 200;

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

/// What the decoder says, and the mend for the mistakes that YAML invites.
pub(super) fn type_problem(message: &str, found: &Node) -> (String, &'static str) {
    let expects = |word: &str| {
        message
            .split("expected ")
            .nth(1)
            .is_some_and(|expected| expected.starts_with(word))
    };
    let number = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"]
        .into_iter()
        .any(expects);
    let mend = match &found.content {
        Content::Text(text) if number && text.parse::<i64>().is_ok() => {
            "write the number without quotes"
        }
        _ if number => "write a whole number",
        Content::Text(_) if expects("a boolean") => "write true or false, without quotes",
        Content::Number(_) | Content::Bool(_) if expects("a string") => "put the value in quotes",
        Content::Map(_) if expects("a sequence") => "begin each entry with `- `",
        _ if message.starts_with("missing field") => "add it",
        _ if message.starts_with("unknown variant") => "write one of those",
        _ => "",
    };
    (message.to_owned(), mend)
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

/// One line of bounded length without control characters: what a file says must not drive the terminal.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned: String = text
        .chars()
        .take(MAX_QUOTED_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        cleaned.push_str("...");
    }
    cleaned
}
