//! One file's text -> its YAML documents.
//!
//! A stream parser gives up at the first bad document and does not count empty ones, so each document is cut out here and parsed
//! alone. Documents begin at `---` in column 0 (YAML 1.2 §9.1.2: followed by white space or the end of the line, so the
//! `-----BEGIN` of a PEM block is none). Those without content are skipped and not counted, as a reader counts.

/// One document with content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// From 1.
    pub(super) number: usize,
    /// The line of the file that `text` begins with, from 1.
    pub(super) first_line: usize,
    pub(super) text: &'a str,
}

pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut starts = vec![(0, 1)];
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if index > 0 && begins_document(line) {
            starts.push((offset, index + 1));
        }
        offset += line.len();
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|(start, _)| *start)
        .chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&(start, first_line), end)| (first_line, &text[start..end]))
        .filter(|(_, text)| has_content(text))
        .enumerate()
        .map(|(index, (first_line, text))| Document {
            number: index + 1,
            first_line,
            text,
        })
        .collect()
}

fn begins_document(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Whether anything is left without markers, directives and comments.
fn has_content(document: &str) -> bool {
    document.lines().any(|line| {
        let line = if begins_document(line) {
            &line[3..]
        } else {
            line
        };
        let line = line.trim_start_matches('\u{feff}').trim();
        !(line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "...")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)]) {
        let documents = split(text);
        let found: Vec<_> = documents
            .iter()
            .map(|document| (document.first_line, document.text))
            .collect();
        assert_eq!(found, expected);
        let numbers: Vec<_> = documents.iter().map(|document| document.number).collect();
        assert_eq!(numbers, (1..=expected.len()).collect::<Vec<_>>());
    }

    #[test]
    fn documents_begin_at_three_dashes_in_column_0() {
        check("a: 1\n", &[(1, "a: 1\n")]);
        check(
            "a: 1\n---\nb: 2\n",
            &[(1, "a: 1\n"), (3 - 1, "---\nb: 2\n")],
        );
        check(
            "---\na: 1\n--- # two\nb: 2",
            &[(1, "---\na: 1\n"), (3, "--- # two\nb: 2")],
        );
        check(
            "a: 1\r\n---\r\nb: 2\r\n",
            &[(1, "a: 1\r\n"), (2, "---\r\nb: 2\r\n")],
        );
        check(
            "--- {a: 1}\n--- {b: 2}\n",
            &[(1, "--- {a: 1}\n"), (2, "--- {b: 2}\n")],
        );
    }

    #[test]
    fn dashes_elsewhere_split_nothing() {
        check("a: |\n  ---\n  x\n", &[(1, "a: |\n  ---\n  x\n")]);
        check("a: |\n-----BEGIN\n", &[(1, "a: |\n-----BEGIN\n")]);
    }

    #[test]
    fn documents_without_content_are_not_counted() {
        check("", &[]);
        check("# only a comment\n---\n---\n\n", &[]);
        check(
            "# licence\n---\na: 1\n---\n# nothing\n---\nb: 2\n...\n",
            &[(2, "---\na: 1\n"), (6, "---\nb: 2\n...\n")],
        );
        check("%YAML 1.2\n---\na: 1\n", &[(2, "---\na: 1\n")]);
        check("\u{feff}# mark\n---\na: 1\n", &[(2, "---\na: 1\n")]);
    }
}
