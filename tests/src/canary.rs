//! Secrets that must not be seen, and the search for them in everything that a program shows: as they are, as base64 at
//! any offset, as hex, and as Rust prints bytes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rcgen::KeyPair;

/// What precedes the 32 secret bytes in the PKCS#8 form of a P-256 key (RFC 5915): version 1, an octet string of 32.
const BEFORE_SCALAR: [u8; 5] = [2, 1, 1, 4, 32];
const SCALAR_LENGTH: usize = 32;

/// One secret in all the forms that are searched for.
pub struct Canary {
    name: String,
    needles: Vec<(String, String)>,
}

impl Canary {
    /// A text that is secret as a whole.
    pub fn of_text(name: &str, text: &str) -> Self {
        let mut canary = Self {
            name: name.to_owned(),
            needles: Vec::new(),
        };
        canary.add("text", text.as_bytes());
        canary
    }

    /// A P-256 key in PEM: its secret bytes, and the lines of the PEM that hold them. The rest of it is public.
    pub fn of_key(name: &str, pem: &str) -> Self {
        let mut canary = Self {
            name: name.to_owned(),
            needles: Vec::new(),
        };
        canary.add("DER", &scalar(pem));
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        for (number, line) in lines.take(2).enumerate() {
            canary.add(&format!("PEM line {number}"), line.as_bytes());
        }
        canary
    }

    fn add(&mut self, form: &str, bytes: &[u8]) {
        let mut add = |encoding: &str, needle: String| {
            self.needles.push((format!("{form} as {encoding}"), needle));
        };
        add("it is", String::from_utf8_lossy(bytes).into_owned());
        for skipped in 0..3 {
            // Three bytes give four characters; those at the ends that depend on what lies around are left out.
            let whole = bytes[skipped..].chunks_exact(3).flatten().copied();
            let whole: Vec<u8> = whole.collect();
            add("base64", STANDARD.encode(&whole));
            add("URL-safe base64", URL_SAFE.encode(&whole));
        }
        for (separator, encoding) in [("", "hex"), (":", "hex with colons"), (" ", "a dump")] {
            let lower = joined(bytes, separator, |byte| format!("{byte:02x}"));
            add(encoding, lower.to_uppercase());
            add(encoding, lower);
        }
        add("a list", joined(bytes, ", ", ToString::to_string));
        add("escaped bytes", bytes.escape_ascii().to_string());
    }

    /// The forms in which it occurs in `text`.
    pub fn found_in(&self, text: &str) -> Vec<String> {
        let occurring = self
            .needles
            .iter()
            .filter(|(_, needle)| text.contains(needle.as_str()));
        occurring
            .map(|(form, _)| format!("{} in {form}", self.name))
            .collect()
    }
}

fn joined(bytes: &[u8], separator: &str, print: impl Fn(&u8) -> String) -> String {
    let printed: Vec<_> = bytes.iter().map(print).collect();
    printed.join(separator)
}

/// The 32 bytes that are the secret of a key.
fn scalar(pem: &str) -> Vec<u8> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD
        .decode(body)
        .expect("base64 between the PEM's lines");
    let before = der
        .windows(BEFORE_SCALAR.len())
        .position(|bytes| bytes == BEFORE_SCALAR);
    let start = before.expect("a P-256 key") + BEFORE_SCALAR.len();
    der[start..start + SCALAR_LENGTH].to_vec()
}

/// Whether the secret bytes of a key survive the way into a log that is read as lines of text: no white space among them,
/// and ASCII at both ends. One of fifteen does.
pub fn is_findable(key_pem: &str) -> bool {
    let secret = scalar(key_pem);
    let ends = [secret.first(), secret.last()];
    let mut ends = ends.iter().flatten();
    ends.all(|byte| byte.is_ascii_graphic())
        && !secret.iter().any(|byte| matches!(byte, 9..=13 | b' '))
}

/// A text that occurs nowhere else, without a line end.
pub fn marker() -> String {
    let key = KeyPair::generate().expect("a key");
    let mut marker = String::from("marker");
    for byte in scalar(&key.serialize_pem()) {
        let _ = write!(marker, "{}", char::from(b'a' + byte % 26));
    }
    marker
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findable_key() -> KeyPair {
        let mut keys = std::iter::repeat_with(|| KeyPair::generate().expect("a key"));
        let key = keys.find(|key| is_findable(&key.serialize_pem()));
        key.expect("keys without end")
    }

    #[track_caller]
    fn check(canary: &Canary, text: &str, expected: bool) {
        let text = format!("12:00 DEBUG something value={text} and more");
        let found = canary.found_in(&text);
        assert_eq!(!found.is_empty(), expected, "{text}: {found:?}");
    }

    #[test]
    fn a_key_is_found_in_every_form_and_its_certificate_is_not() {
        let key = findable_key();
        let pem = key.serialize_pem();
        let canary = Canary::of_key("key", &pem);
        let der = key.serialize_der();
        let secret = scalar(&pem);
        for line in pem.lines().skip(1).take(2) {
            check(&canary, line, true);
        }
        check(&canary, &pem.replace('\n', "\\n"), true);
        check(&canary, &String::from_utf8_lossy(&der), true);
        for before in ["", "a", "ab"] {
            check(
                &canary,
                &STANDARD.encode([before.as_bytes(), &der].concat()),
                true,
            );
            check(
                &canary,
                &URL_SAFE.encode([before.as_bytes(), &der].concat()),
                true,
            );
            check(&canary, &STANDARD.encode(format!("{before}{pem}")), true);
        }
        check(
            &canary,
            &joined(&der, "", |byte| format!("{byte:02x}")),
            true,
        );
        check(
            &canary,
            &joined(&der, ":", |byte| format!("{byte:02X}")),
            true,
        );
        check(&canary, &format!("{der:?}"), true);
        check(&canary, &format!("b\"{}\"", der.escape_ascii()), true);
        assert_eq!(secret.len(), SCALAR_LENGTH);

        let certificate = rcgen::CertificateParams::new(["a.example.com".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        check(&canary, &certificate.pem(), false);
        check(&canary, &findable_key().serialize_pem(), false);
    }
}
