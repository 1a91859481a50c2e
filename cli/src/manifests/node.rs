//! One YAML document -> a tree that knows its lines.
//!
//! The tree is what a typed decoder needs besides JSON: it answers "which line is `spec.rules[0].name` on", which neither serde
//! nor `serde_ignored` can. Scalars keep their YAML type, so a quoted `"80"` stays a string and is refused where a number
//! belongs, as the API server does. Errors carry a position and the parser's words, never the input's neighbourhood.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{Location, Spanned, UserMessageFormatter};
use zeroize::Zeroizing;

/// Most nodes and aliases' copies of one document. A full EndpointSlice has 1000 endpoints of some 20 nodes.
const MAX_NODES: usize = 200_000;
/// Deepest nesting. The deepest field of the four kinds is 12 deep; `managedFields` of an export adds as many again.
const MAX_DEPTH: usize = 64;

/// A value and the line on which its key, or its list entry, begins (from 1, relative to the document).
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    /// May be a private key.
    Text(Zeroizing<String>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// One step from a node to one below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// What the parser did not understand. `message` may repeat a word of the document.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl Node {
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let options = serde_saphyr::options! {
            // The default error prints the lines around it, private keys too.
            with_snippet: false,
            // `y` and `on` are strings, as in YAML 1.2 and for kubectl.
            strict_booleans: true,
            emit_comments: false,
            budget: serde_saphyr::budget! {
                max_nodes: MAX_NODES,
                max_depth: MAX_DEPTH,
            },
        };
        let root: Spanned<Content> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| syntax_error(&error))?;
        Ok(root.into())
    }

    /// The value under `key` of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, node)| node),
            Content::Null
            | Content::Bool(_)
            | Content::Number(_)
            | Content::Text(_)
            | Content::List(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Null
            | Content::Bool(_)
            | Content::Number(_)
            | Content::List(_)
            | Content::Map(_) => None,
        }
    }

    /// The node at `path`, or the nearest one above it.
    pub(super) fn nearest(&self, path: &[Step]) -> &Self {
        let mut node = self;
        for step in path {
            let below = match (step, &node.content) {
                (Step::Key(key), _) => node.get(key),
                (Step::Index(index), Content::List(entries)) => entries.get(*index),
                (Step::Index(_), _) => None,
            };
            match below {
                Some(below) => node = below,
                None => break,
            }
        }
        node
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::String(value.to_string()),
            Content::List(entries) => Value::Array(entries.iter().map(Self::to_json).collect()),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        Self {
            line: line(spanned.referenced).unwrap_or(1),
            content: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value)
            .map(Content::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned().into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element::<Spanned<Content>>()? {
            entries.push(entry.into());
        }
        Ok(Content::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some((key, content)) = map.next_entry::<Spanned<String>, Content>()? {
            let line =
                line(key.referenced).ok_or_else(|| A::Error::custom("a key without a position"))?;
            entries.push((key.value, Node { line, content }));
        }
        Ok(Content::Map(entries))
    }
}

fn line(location: Location) -> Option<usize> {
    usize::try_from(location.line())
        .ok()
        .filter(|line| *line > 0)
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    use serde_saphyr::MessageFormatter as _;
    let message = match error {
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "a second document that does not begin with `---`".to_owned()
        }
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("`{key}` is there twice")
        }
        other => UserMessageFormatter.format_message(other).into_owned(),
    };
    SyntaxError {
        line: error.location().and_then(line),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_knows_its_line() {
        let root = Node::parse("---\na:\n  b:\n  - c: 1\n    d: two\n  -\n    e: [x,\n      y]\n")
            .unwrap();
        let line_of = |path: &[Step]| root.nearest(path).line;
        let key = |name: &str| Step::Key(name.to_owned());
        assert_eq!(line_of(&[key("a")]), 2);
        assert_eq!(line_of(&[key("a"), key("b"), Step::Index(0), key("d")]), 5);
        assert_eq!(line_of(&[key("a"), key("b"), Step::Index(1), key("e")]), 7);
        assert_eq!(
            line_of(&[key("a"), key("b"), Step::Index(1), key("e"), Step::Index(1)]),
            8
        );
        assert_eq!(line_of(&[key("a"), key("nowhere"), key("b")]), 2);
    }

    #[track_caller]
    fn check_json(text: &str, expected: &str) {
        assert_eq!(Node::parse(text).unwrap().to_json().to_string(), expected);
    }

    #[test]
    fn scalars_keep_their_yaml_type() {
        check_json(
            "a: \"80\"\nb: 80\nc: y\nd: on\ne: true\nf: ~\ng: 1.5",
            r#"{"a":"80","b":80,"c":"y","d":"on","e":true,"f":null,"g":1.5}"#,
        );
        check_json(
            "a: |\n  x\n  y\nb: >-\n  x\n  y\n",
            "{\"a\":\"x\\ny\\n\",\"b\":\"x y\"}",
        );
        check_json(
            "when: 2026-11-22T10:00:00Z",
            r#"{"when":"2026-11-22T10:00:00Z"}"#,
        );
        check_json("a: &x {b: 1}\nc: *x", r#"{"a":{"b":1},"c":{"b":1}}"#);
        check_json("80: x", r#"{"80":"x"}"#);
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = Node::parse(text).unwrap_err();
        assert_eq!(format!("{:?} {}", error.line, error.message), expected);
    }

    #[test]
    fn syntax_errors_have_a_line_and_no_neighbours() {
        check_error("a: 1\nb: [1\n", "Some(2) unclosed bracket '['");
        check_error("a: 1\na: 2\n", "Some(2) `a` is there twice");
        check_error(
            "a: 1\n\tb: 2\n",
            "Some(1) while scanning a plain scalar, found a tab",
        );
        check_error(
            "a: 1\n...\nb: 2\n",
            "Some(3) a second document that does not begin with `---`",
        );
        check_error("a: *x\n", "Some(1) reference to unknown value");
        check_error(
            "a: b: c\n",
            "Some(1) mapping values are not allowed in this context",
        );
        check_error("a: .nan\n", "Some(1) value `.nan` is not a finite number");
        check_error(
            "k: |\n-----BEGIN\nMIIB\n",
            "Some(2) simple key expected ':'",
        );
    }

    #[test]
    fn alias_bombs_end_at_the_limit() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..8 {
            let below = vec![format!("*a{}", level - 1); 10].join(",");
            let line = format!("a{level}: &a{level} [{below}]\n");
            text.push_str(&line);
        }
        assert!(Node::parse(&text).is_err());
    }
}
