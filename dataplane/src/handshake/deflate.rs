//! The parameters of permessage-deflate (RFC 7692 §7.1): what an answer may agree to, given what was offered.
//!
//! A client must fail the connection over an answer that breaks these rules (§5.2, §7.1), so such an answer opens nothing here.

use super::Extension;

pub(super) const NAME: &str = "permessage-deflate";

/// An answer's parameters, each of which may stand once.
#[derive(Debug, Default)]
struct Agreed {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

/// Whether `answer` is a right answer to any of the offers; a client may offer several sets of parameters.
pub(super) fn answers<'a>(
    answer: &Extension,
    mut offers: impl Iterator<Item = &'a Extension>,
) -> bool {
    read(answer).is_some_and(|agreed| offers.any(|offer| fits(&agreed, offer)))
}

fn read(answer: &Extension) -> Option<Agreed> {
    let mut agreed = Agreed::default();
    for (name, value) in &answer.parameters {
        let first = match (name.as_str(), value) {
            ("server_no_context_takeover", None) => {
                !std::mem::replace(&mut agreed.server_no_context_takeover, true)
            }
            ("client_no_context_takeover", None) => {
                !std::mem::replace(&mut agreed.client_no_context_takeover, true)
            }
            ("server_max_window_bits", Some(bits)) => {
                let bits = window_bits(bits)?;
                agreed.server_max_window_bits.replace(bits).is_none()
            }
            ("client_max_window_bits", Some(bits)) => {
                let bits = window_bits(bits)?;
                agreed.client_max_window_bits.replace(bits).is_none()
            }
            // Another name, or one with a value that it may not have.
            _ => false,
        };
        if !first {
            return None;
        }
    }
    Some(agreed)
}

/// What an offer demands, an answer has; what an offer does not allow, it has not.
fn fits(agreed: &Agreed, offer: &Extension) -> bool {
    let mut client_window_was_offered = false;
    for (name, value) in &offer.parameters {
        let most = value.as_deref().and_then(window_bits);
        let kept = match name.as_str() {
            "server_no_context_takeover" => agreed.server_no_context_takeover,
            "server_max_window_bits" => most
                .zip(agreed.server_max_window_bits)
                .is_some_and(|(most, bits)| bits <= most),
            "client_max_window_bits" => {
                client_window_was_offered = true;
                // Without a value any is allowed (§7.1.2.2).
                let bits = agreed.client_max_window_bits.zip(most);
                bits.is_none_or(|(bits, most)| bits <= most)
            }
            // A hint of the client's, which the server need not take up (§7.1.1.2).
            "client_no_context_takeover" => true,
            // A server that does not know a parameter declines the offer (§7).
            _ => false,
        };
        if !kept {
            return false;
        }
    }
    client_window_was_offered || agreed.client_max_window_bits.is_none()
}

/// 8 to 15, in decimal without zeros before it (§7.1.2).
fn window_bits(text: &str) -> Option<u8> {
    let bits = text
        .parse::<u8>()
        .ok()
        .filter(|bits| (8..=15).contains(bits))?;
    (bits.to_string() == text).then_some(bits)
}
