//! What names of Kubernetes objects look like, for texts that no API server has checked.

/// Longest name of most objects, a DNS subdomain (RFC 1123).
const MAX_SUBDOMAIN_BYTES: usize = 253;

/// Longest name of a namespace or a Service, a DNS label (RFC 1123).
const MAX_LABEL_BYTES: usize = 63;

/// Whether this can be the name of an object: RFC 1123 labels joined by dots, at most 253 bytes.
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN_BYTES && name.split('.').all(has_form_of_label)
}

/// Whether this can be the name of a namespace or a Service: one RFC 1123 label of at most 63 bytes. Until 1.34 a Service's name
/// also had to begin with a letter; what a newer API server takes is taken.
pub fn is_label(name: &str) -> bool {
    name.len() <= MAX_LABEL_BYTES && has_form_of_label(name)
}

fn has_form_of_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty()
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, subdomain: bool, label: bool) {
        assert_eq!(is_subdomain(name), subdomain, "{name:?}");
        assert_eq!(is_label(name), label, "{name:?}");
    }

    #[test]
    fn names_are_those_of_rfc_1123() {
        for name in ["a", "1", "a-b", "0a", &"a".repeat(63)] {
            check(name, true, true);
        }
        for name in [
            "", "A", "a_b", "-a", "a-", ".", "..", "a.", "ä", "a\n", "a b", "a/b", "a\u{7f}",
        ] {
            check(name, false, false);
        }
        check("a.b-c.1", true, false);
        check("a..b", false, false);
        check("a.-b", false, false);
        check(&"a".repeat(64), true, false);
        check(&"a".repeat(253), true, false);
        check(&"a".repeat(254), false, false);
    }
}
