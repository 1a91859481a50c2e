//! `chart/*.values.yaml`: values that people install with, each rendered to the file of the same name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One set of values.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub values: Value,
    /// What it renders to; committed.
    pub rendered: PathBuf,
}

pub fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart");
    let mut cases: Vec<Case> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name()?.to_str()?.strip_suffix(".values.yaml")?;
            Some(Case::read(name, &path))
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 6, "{} cases", cases.len());
    cases
}

impl Case {
    fn read(name: &str, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a case can be read");
        let values: Option<Value> =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            values: values.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            rendered: path.with_file_name(format!("{name}.yaml")),
        }
    }
}
