//! Tokens that say something else than the API server wrote: with a signature that is worth nothing, or with its own.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::Value;

/// Bytes of each of the two numbers of a signature by P-256 (RFC 7518 §3.4).
const NUMBER_BYTES: usize = 32;

/// The same token with other claims, under the signature that it had.
pub fn forged(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let (signed, signature) = changed(token, change);
    format!("{signed}.{signature}")
}

/// The same token with other claims, signed anew.
pub fn signed(token: &str, key: &KeyPair, change: impl FnOnce(&mut Value)) -> String {
    let (signed, _) = changed(token, change);
    let signature = key.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", BASE64.encode(numbers(&signature)))
}

/// What is signed, after the change, and the signature before it.
fn changed(token: &str, change: impl FnOnce(&mut Value)) -> (String, &str) {
    let mut parts = token.split('.');
    let mut part = || parts.next().expect("a token has three parts");
    let [header, payload, signature] = [part(), part(), part()];
    let payload = BASE64.decode(payload).expect("base64");
    let mut claims = serde_json::from_slice(&payload).expect("JSON");
    change(&mut claims);
    let payload = BASE64.encode(claims.to_string());
    (format!("{header}.{payload}"), signature)
}

/// Both numbers of a signature: ASN.1 has them as a SEQUENCE of two INTEGERs, a token side by side.
fn numbers(der: &[u8]) -> Vec<u8> {
    // A tag and a length each; with P-256 no length needs more than a byte.
    let (r, s) = der[4..].split_at(der[3].into());
    let fixed = |number: &[u8]| {
        let first = number.iter().position(|byte| *byte != 0);
        let number = &number[first.unwrap_or(number.len())..];
        [&vec![0; NUMBER_BYTES - number.len()][..], number].concat()
    };
    [fixed(r), fixed(&s[2..])].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_put_side_by_side() {
        // 0x80 needs a byte of zeros before it in ASN.1, 1 needs none.
        let der = [0x30, 7, 2, 2, 0, 0x80, 2, 1, 1];
        let both = numbers(&der);
        assert_eq!(both.len(), 2 * NUMBER_BYTES);
        assert_eq!(
            (both[NUMBER_BYTES - 1], both[2 * NUMBER_BYTES - 1]),
            (0x80, 1)
        );
        assert_eq!(both.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 0x81);
    }
}
