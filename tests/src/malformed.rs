//! Reads `data/malformed.txt`: requests that must be refused, as bytes. Its own first lines say how it is written.

/// One malformed request.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// Any of these is right; more than one only where the RFCs leave it to the server.
    pub expected: Vec<Expected>,
    pub bytes: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Expected {
    Status(u16),
    /// The connection ends without an answer.
    Closed,
}

pub fn cases() -> Vec<Case> {
    parse(include_str!("../data/malformed.txt"))
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix("== ") {
            let (name, expected) = head
                .rsplit_once(" -> ")
                .expect("a name and what is expected");
            let expected = expected.split('|').map(parse_expected).collect();
            cases.push(Case {
                name: name.to_owned(),
                expected,
                bytes: Vec::new(),
            });
        } else {
            let case = cases.last_mut().expect("a case begins with its name");
            unescape(line, &mut case.bytes);
        }
    }
    cases
}

fn parse_expected(word: &str) -> Expected {
    match word {
        "closed" => Expected::Closed,
        status => Expected::Status(status.parse().expect("a status or `closed`")),
    }
}

fn unescape(line: &str, bytes: &mut Vec<u8>) {
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        if let Some(repeated) = rest.strip_prefix("\\*") {
            // \*9000a is 9000 times the letter a.
            let digits = repeated
                .find(|c: char| !c.is_ascii_digit())
                .expect("a byte to repeat");
            let count = repeated[..digits].parse().expect("how often");
            bytes.extend(std::iter::repeat_n(repeated.as_bytes()[digits], count));
            rest = &repeated[digits + 1..];
        } else if let Some(escaped) = rest.strip_prefix('\\') {
            let (byte, used) = match escaped.as_bytes() {
                [b'r', ..] => (b'\r', 1),
                [b'n', ..] => (b'\n', 1),
                [b't', ..] => (b'\t', 1),
                [b'\\', ..] => (b'\\', 1),
                [b'x', _, _, ..] => (
                    u8::from_str_radix(&escaped[1..3], 16).expect("two hexadecimal digits"),
                    3,
                ),
                _ => panic!("an unknown escape in {line:?}"),
            };
            bytes.push(byte);
            rest = &escaped[used..];
        } else {
            bytes.extend(next.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[next.len_utf8()..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_escapes_become_bytes() {
        let cases =
            parse("# about\n\n== a name -> 400|closed\nGET\\x20/\\r\\n\nA: \\*3b\\\\\\r\\n\n");
        assert_eq!(cases.len(), 1);
        assert_eq!(cases[0].name, "a name");
        assert_eq!(cases[0].expected, [Expected::Status(400), Expected::Closed]);
        assert_eq!(cases[0].bytes, b"GET /\r\nA: bbb\\\r\n");
    }

    #[test]
    fn the_data_file_holds_at_least_forty_cases_with_different_names() {
        let mut names: Vec<_> = cases().into_iter().map(|case| case.name).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "two cases have the same name");
        assert!(all >= 40, "only {all} cases");
    }
}
