//! Why a request to the API server failed, in a form that can be shown: short, and without what the body held.

use std::time::Duration;

/// Most characters of the API server's own words that are repeated.
const MAX_SHOWN: usize = 300;

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The API server's answer.
    #[error("{code} {reason}: {message}")]
    Refused {
        code: u16,
        reason: String,
        message: String,
    },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the watch did not end after {0:?}, the connection is taken for dead")]
    Stalled(Duration),
    #[error("the list has no resourceVersion")]
    NoVersion,
    #[error("the answer cannot be read")]
    Unreadable,
    #[error("what reads the answer panicked, which is a bug; the log says where")]
    Panicked,
    #[error("no connection: {0}")]
    Connection(String),
}

impl Failure {
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Timeout(_)
            | Self::Stalled(_)
            | Self::NoVersion
            | Self::Unreadable
            | Self::Panicked
            | Self::Connection(_) => None,
        }
    }
}

impl Failure {
    /// Without the API server's sentence, which names objects.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::Refused { code, reason, .. } => format!("{code} {reason}"),
            Self::Timeout(_)
            | Self::Stalled(_)
            | Self::NoVersion
            | Self::Unreadable
            | Self::Panicked
            | Self::Connection(_) => self.to_string(),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                code: status.code,
                reason: shown(&status.reason),
                message: shown(&status.message),
            },
            // Its text may hold parts of the body.
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Unreadable,
            error => Self::Connection(shown(&chain(&error))),
        }
    }
}

/// The error with all its causes; some print theirs themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// One line of bounded length.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SHOWN)
        .collect::<String>();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_one_bounded_line() {
        assert_eq!(shown("a\nb"), "a b");
        let long = "x".repeat(MAX_SHOWN + 1);
        assert_eq!(shown(&long), format!("{}...", "x".repeat(MAX_SHOWN)));
    }

    #[test]
    fn what_could_not_be_read_is_not_repeated() {
        let error = serde_json::from_str::<u8>("\"secret\"").unwrap_err();
        let failure = Failure::from(kube::Error::SerdeError(error));
        assert_eq!(failure.to_string(), "the answer cannot be read");
    }
}
