//! `metadata.name` and `metadata.namespace`: only what the API server takes.
//!
//! Names go into logs, metrics and header fields. In a cluster the API server has checked them; here nobody else does. The errors
//! do not repeat the name, whose line they give.

/// What a name may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// RFC 1123 labels joined by dots, as most objects are named.
    Subdomain,
    /// One RFC 1123 label, as namespaces and Services are named. Until 1.34 a Service's name also had to begin with a letter;
    /// what a newer API server takes is taken.
    Label,
}

impl Form {
    pub(super) fn fits(self, name: &str) -> bool {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let label = |label: &str| {
            !label.is_empty()
                && label.chars().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        match self {
            Self::Subdomain => name.len() <= 253 && name.split('.').all(label),
            Self::Label => name.len() <= 63 && label(name),
        }
    }

    pub(super) fn mend(self) -> &'static str {
        match self {
            Self::Subdomain => {
                "write lower case letters, digits, '-' and '.', begin and end with a letter or digit, 253 characters at most"
            }
            Self::Label => {
                "write lower case letters, digits and '-', begin and end with a letter or digit, 63 characters at most"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: Form, name: &str, expected: bool) {
        assert_eq!(form.fits(name), expected, "{name:?}");
    }

    #[test]
    fn names_are_those_of_rfc_1123() {
        for form in [Form::Subdomain, Form::Label] {
            for name in ["a", "1", "a-b", "0a", &"a".repeat(63)] {
                check(form, name, true);
            }
            for name in [
                "", "A", "a_b", "-a", "a-", ".", "a.", "ä", "a\n", "a b", "a/b", "a\u{7f}",
            ] {
                check(form, name, false);
            }
        }
        check(Form::Label, "a.b", false);
        check(Form::Label, &"a".repeat(64), false);
        check(Form::Subdomain, "a.b-c.1", true);
        check(Form::Subdomain, "a..b", false);
        check(Form::Subdomain, &"a".repeat(253), true);
        check(Form::Subdomain, &"a".repeat(254), false);
    }
}
