//! Every value of the chart changes the field that it names; every value has its words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::chart::{file, table, values, values_of_the_schema};
use tests::helm::{CHART, Helm, Objects};

/// Renderings at a time.
const AT_A_TIME: usize = 4;

/// One entry of the data file, which says what its fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    value: String,
    is: Value,
    #[serde(default)]
    with: BTreeMap<String, Value>,
    object: String,
    #[serde(default)]
    at: String,
    #[serde(default, deserialize_with = "present")]
    to: Option<Value>,
    has: Option<Value>,
}

/// `to: null` is not the same as no `to`.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// The data file, with an entry for each component where it says COMPONENT.
fn entries() -> Vec<Entry> {
    let text = include_str!("../data/chart-values.yaml");
    let entries: Vec<Value> = serde_saphyr::from_str(text).expect("the data file is YAML");
    let components = |entry: Value| {
        let text = entry.to_string();
        let names: &[&str] = if text.contains("COMPONENT") {
            &["controller", "dataplane"]
        } else {
            &["every"]
        };
        let texts: Vec<_> = names
            .iter()
            .map(|name| text.replace("COMPONENT", name))
            .collect();
        texts
    };
    let parse = |text: String| serde_json::from_str(&text).expect(&text);
    entries
        .into_iter()
        .flat_map(components)
        .map(parse)
        .collect()
}

impl Entry {
    fn without(&self) -> Value {
        json!(self.with)
    }

    fn with(&self) -> Value {
        let mut values = self.without();
        let mut place = &mut values;
        for name in self.value.split('.') {
            place = &mut place[name];
        }
        *place = self.is.clone();
        values
    }

    /// What is wrong about it.
    fn judge(&self, before: &Objects, after: &Objects) -> Option<String> {
        let field = |objects: &Objects| {
            let object = objects.get(&self.object);
            object.pointer(&self.at).cloned().unwrap_or_default()
        };
        let (before, after) = (field(before), field(after));
        let holds = match &self.has {
            Some(element) => {
                let holds = |list: &Value| list.as_array().is_some_and(|l| l.contains(element));
                holds(&after) && !holds(&before)
            }
            None => after != before && after == *self.to.as_ref().unwrap_or(&self.is),
        };
        let Self {
            value,
            is,
            object,
            at,
            ..
        } = self;
        (!holds).then(|| format!("{value}: {is}: {object} {at}\n  from {before}\n  to   {after}"))
    }
}

#[tokio::test]
async fn every_value_changes_the_field_that_it_names() {
    let Some(helm) = Helm::four() else {
        return;
    };
    let entries = entries();
    let sets = entries
        .iter()
        .flat_map(|entry| [entry.without(), entry.with()]);
    let sets: BTreeMap<String, Value> = sets.map(|set| (set.to_string(), set)).collect();
    let render = async |(text, set)| (text, helm.render(set).await);
    let rendered = stream::iter(&sets).map(render).buffered(AT_A_TIME);
    let rendered: BTreeMap<&String, Objects> = rendered.collect().await;
    let judge = |entry: &Entry| {
        let [before, after] =
            [entry.without(), entry.with()].map(|set| &rendered[&set.to_string()]);
        entry.judge(before, after)
    };
    let wrong: Vec<String> = entries.iter().filter_map(judge).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_value_is_in_the_table_of_this_test() {
    let tested: BTreeSet<String> = entries().into_iter().map(|entry| entry.value).collect();
    let there: BTreeSet<String> = values().into_iter().map(|value| value.path).collect();
    let untested: Vec<_> = there.difference(&tested).collect();
    assert!(
        untested.is_empty(),
        "add a line to tests/data/chart-values.yaml for {untested:?}"
    );
    let gone: Vec<_> = tested.difference(&there).collect();
    assert!(gone.is_empty(), "values.yaml lacks {gone:?}");
}

#[test]
fn every_value_has_a_default_a_comment_and_a_schema() {
    let values = values();
    let silent: Vec<_> = values
        .iter()
        .filter(|value| value.comment.is_empty())
        .map(|value| &value.path)
        .collect();
    assert!(silent.is_empty(), "no comment above {silent:?}");

    let there: BTreeSet<&str> = values.iter().map(|value| value.path.as_str()).collect();
    let schema = values_of_the_schema();
    let schema: BTreeSet<&str> = schema
        .iter()
        .map(String::as_str)
        // Of the charts that have this one as a dependency.
        .filter(|value| *value != "enabled")
        .collect();
    let differing: Vec<_> = there.symmetric_difference(&schema).collect();
    assert!(
        differing.is_empty(),
        "only in one of values.yaml and values.schema.json: {differing:?}"
    );
}

#[test]
fn the_readme_has_the_table_of_values() {
    let readme = file("README.md");
    let (begin, end) = ("<!-- values -->\n", "<!-- end of values -->");
    let (head, rest) = readme.split_once(begin).expect("where the table begins");
    let (_, tail) = rest.split_once(end).expect("where it ends");
    let written = format!("{head}{begin}{}{end}{tail}", table());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(Path::new(CHART).join("README.md"), written).expect("the README");
    } else {
        assert!(
            written == readme,
            "the table of values is stale: run `make chart-docs` and review the diff"
        );
    }
}
