//! Reads `data/routes.txt`: routes that the API server takes or refuses. Its own first lines say how it is written.

/// One route, as it is applied.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub expected: Expected,
    /// All of the manifest below its head.
    body: String,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Expected {
    Taken,
    /// With all of these in what kubectl prints.
    Refused(Vec<String>),
}

impl Case {
    /// The manifest, under a name in its namespace.
    pub fn manifest(&self, name: &str) -> String {
        format!(
            "apiVersion: ws-ingress.dev/v1alpha1\nkind: WebSocketRoute\nmetadata:\n  name: {name}\n{}",
            self.body
        )
    }
}

pub fn cases() -> Vec<Case> {
    parse(include_str!("../../data/routes.txt"))
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix("== ") {
            let (name, verdict) = head
                .rsplit_once(" -> ")
                .expect("a name and what is expected");
            cases.push(Case {
                name: name.to_owned(),
                expected: match verdict {
                    "taken" => Expected::Taken,
                    "refused" => Expected::Refused(Vec::new()),
                    other => panic!("{other:?} is neither taken nor refused"),
                },
                body: String::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with its name");
        match (line.strip_prefix("! "), &mut case.expected) {
            (Some(fragment), Expected::Refused(fragments)) => fragments.push(fragment.to_owned()),
            (Some(_), Expected::Taken) => panic!("{}: a fragment of what is taken", case.name),
            (None, _) => {
                case.body.push_str(&repeat(line));
                case.body.push('\n');
            }
        }
    }
    cases
}

/// `«3×ab»` becomes `ababab`, the innermost first.
fn repeat(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some(start) = line.rfind('«') {
        let end = start + line[start..].find('»').expect("a « has its »");
        let (count, text) = line[start + '«'.len_utf8()..end]
            .split_once('×')
            .expect("how often, and what");
        let repeated = text.repeat(count.parse().expect("how often"));
        line.replace_range(start..end + '»'.len_utf8(), &repeated);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_may_lie_in_each_other() {
        assert_eq!(repeat("a«2×b«3×c»»d"), "abcccbcccd");
    }

    #[test]
    fn every_refusal_names_a_field() {
        let cases = cases();
        assert!(cases.len() >= 40, "{} cases", cases.len());
        for case in cases {
            if let Expected::Refused(fragments) = &case.expected {
                let field = fragments.first().expect("a fragment");
                assert!(field.starts_with("spec"), "{}", case.name);
            }
        }
    }
}
