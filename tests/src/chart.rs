//! `charts/ws-ingress/values.yaml` as its readers see it: every value with its default and its comment.
//!
//! A value is what `values.schema.json` says that a user may set: the fields of an object that takes no others are values of
//! their own, any other object is one value.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::helm::CHART;

/// One value.
#[derive(Debug)]
pub struct Documented {
    /// Such as `dataplane.service.type`.
    pub path: String,
    pub default: Value,
    /// The words above it, without `#` and line breaks.
    pub comment: String,
}

/// Every value that values.yaml has, in its order.
pub fn values() -> Vec<Documented> {
    let text = file("values.yaml");
    let defaults: Value = serde_saphyr::from_str(&text).expect("values.yaml is YAML");
    let schema = schema();
    let comments = comments(&text);
    let mut found = Vec::new();
    collect(&schema, &schema, &defaults, "", &mut found);
    // `Map` has its own order; the file has the reader's.
    found.sort_by_key(|(path, _)| comments.get(path).map_or(usize::MAX, |(line, _)| *line));
    let documented = |(path, default): (String, Value)| {
        let comment = comments.get(&path).map(|(_, comment)| comment.clone());
        Documented {
            comment: comment.unwrap_or_default(),
            path,
            default,
        }
    };
    found.into_iter().map(documented).collect()
}

/// Every value that the schema has.
pub fn values_of_the_schema() -> Vec<String> {
    fn walk(root: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
        match fields(root, schema) {
            Some(fields) => {
                for (name, field) in fields {
                    walk(root, field, &join(path, name), found);
                }
            }
            None => found.push(path.to_owned()),
        }
    }
    let schema = schema();
    let mut found = Vec::new();
    walk(&schema, &schema, "", &mut found);
    found
}

/// The table of values in the chart's README.
pub fn table() -> String {
    let mut table = "| value | default | what it does |\n|---|---|---|\n".to_owned();
    for Documented {
        path,
        default,
        comment,
    } in values()
    {
        let default = default.to_string().replace('|', "\\|");
        let comment = comment.replace('|', "\\|");
        writeln!(table, "| `{path}` | `{default}` | {comment} |").expect("a String takes text");
    }
    table
}

/// A file of the chart.
pub fn file(name: &str) -> String {
    let path = Path::new(CHART).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema() -> Value {
    serde_json::from_str(&file("values.schema.json")).expect("the schema is JSON")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The fields of an object whose fields are values of their own. `global` takes others too, but those are not of this chart.
fn fields<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Map<String, Value>> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#'))?,
        None => schema,
    };
    schema["properties"]
        .as_object()
        .filter(|_| schema["type"] == "object")
}

fn collect(
    root: &Value,
    schema: &Value,
    defaults: &Value,
    path: &str,
    found: &mut Vec<(String, Value)>,
) {
    let Some(defaults) = defaults
        .as_object()
        .filter(|_| fields(root, schema).is_some())
    else {
        found.push((path.to_owned(), defaults.clone()));
        return;
    };
    let fields = fields(root, schema).expect("looked at above");
    for (name, default) in defaults {
        let field = fields.get(name).unwrap_or(&Value::Null);
        collect(root, field, default, &join(path, name), found);
    }
}

/// The line and the comment of every key, by path. Reads what values.yaml is made of: two blanks a level, and comments right
/// above their key.
fn comments(text: &str) -> BTreeMap<String, (usize, String)> {
    let mut found = BTreeMap::new();
    let mut path: Vec<&str> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            words.push(comment.trim());
            continue;
        }
        let key = trimmed.split_once(':').map(|(key, _)| key);
        if let Some(key) = key.filter(|_| !trimmed.starts_with('-')) {
            path.truncate((line.len() - trimmed.len()) / 2);
            path.push(key);
            found.insert(path.join("."), (number, words.join(" ")));
        }
        words.clear();
    }
    found
}
