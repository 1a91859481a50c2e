//! How much of what a user wrote may be repeated on a terminal or in a log.
//!
//! A private key can stand in any field of any object: pasted inline where its Secret's name belongs, or moved there by a slip of
//! indentation. So a text is repeated only while it is short and does not look like a key or a part of one.

/// Longest text that is repeated in an error.
const MAX_QUOTED_CHARS: usize = 64;
/// Longest line that is made of a user's text and ours.
const MAX_LINE_CHARS: usize = 200;
/// A line of a PEM block is 64 characters of base64. What is left of it below this is of no use to anybody.
const MIN_KEY_CHARS: usize = 24;

/// Whether a text may be repeated whole.
pub(crate) fn may_quote(text: &str) -> bool {
    text.chars().nth(MAX_QUOTED_CHARS).is_none()
        && !text.contains(char::is_control)
        && !may_be_key(text)
}

/// Whether some of it may be the text of a private key: the begin of a PEM block, or a long run of base64.
pub(crate) fn may_be_key(text: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    text.contains("BEGIN ")
        || text.split(|c| !base64(c)).any(|run| {
            // Paths are such runs too, but rarely in mixed case.
            run.len() >= MIN_KEY_CHARS
                && run.contains(|c: char| c.is_ascii_uppercase())
                && run.contains(|c: char| c.is_ascii_lowercase())
        })
}

/// One line of bounded length: a slip must not fill the terminal.
pub(crate) fn clean(text: &str) -> String {
    match text.char_indices().nth(MAX_LINE_CHARS) {
        Some((end, _)) => format!("{}...", printable(&text[..end])),
        None => printable(text),
    }
}

/// One line without control characters: what a file says must not drive the terminal, nor pass for a line of ours.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_values_may_be_quoted() {
        for text in [
            "",
            "http",
            "1 hour",
            "https://chat.internal.example.com:8443/rooms",
            "/a/long/path/of/lower/case/words/only",
            "2026-11-22T10:00:00Z",
            "6f1c2f6e-0f3b-4c43-9d0e-5f2b8f1c7a11",
        ] {
            assert!(may_quote(text), "{text}");
        }
    }

    #[test]
    fn keys_long_texts_and_lines_may_not() {
        for text in [
            "-----BEGIN PRIVATE KEY-----",
            "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
            "x, expected MIIEvQIBADANBgkqhkiG9w0B",
            "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t",
            "two\nlines",
            "\u{1b}[31m",
            &"x".repeat(MAX_QUOTED_CHARS + 1),
        ] {
            assert!(!may_quote(text), "{text}");
        }
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\u{fffd}b\u{fffd}[31m");
        assert_eq!(clean("a\tb"), "a\u{fffd}b");
        assert_eq!(clean(&"ü".repeat(300)), "ü".repeat(MAX_LINE_CHARS) + "...");
    }
}
