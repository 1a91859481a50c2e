//! The tables of `docs/coming-from-nginx.md`: the document is the list of differences, so that it cannot say another than the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A row: what nginx does, what ws-ingress does, why.
pub(crate) struct Row {
    nginx: String,
    ours: String,
    why: String,
}

/// The rows of all tables below the heading `title`, by their first cell.
pub(crate) fn rows(title: &str) -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coming-from-nginx.md");
    let text = fs::read_to_string(path).expect("the document");
    let heading = format!("\n## {title}\n");
    let (_, section) = text.split_once(&heading).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let line = line.trim_start_matches("| ").trim_end_matches(" |");
        let cells: Vec<_> = line.split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "not four cells: {line}");
        let (action, nginx, ours, why) = (cells[0], cells[1], cells[2], cells[3]);
        if action == "what" {
            continue;
        }
        let row = Row {
            nginx: nginx.to_owned(),
            ours: ours.to_owned(),
            why: why.to_owned(),
        };
        let before = rows.insert(action.to_owned(), row);
        assert!(before.is_none(), "two rows for {action}");
    }
    rows
}

/// Takes the row of an action out, and notes what is not as it says.
pub(crate) fn compare(
    rows: &mut BTreeMap<String, Row>,
    action: &str,
    (nginx, ours): (String, String),
    wrong: &mut Vec<String>,
) {
    match rows.remove(action) {
        None if nginx.is_empty() && ours.is_empty() => {}
        None => wrong.push(format!("not listed:\n| {action} | {nginx} | {ours} | |")),
        Some(row) if row.nginx != nginx || row.ours != ours => wrong.push(format!(
            "the row is\n| {action} | {} | {} |\nand it is\n| {action} | {nginx} | {ours} |",
            row.nginx, row.ours
        )),
        Some(row) => {
            let reasoned = ["RFC", "safety", "Gateway API"]
                .iter()
                .any(|word| row.why.contains(word));
            if !reasoned {
                wrong.push(format!(
                    "{action}: no RFC, safety or Gateway API: {}",
                    row.why
                ));
            }
        }
    }
}
