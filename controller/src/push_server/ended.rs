//! Why a stream ended: one table of causes, labels and last words.

use push::BadHello;
use tonic::{Code, Status};

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    #[error("the dataplane ended it")]
    Closed,
    #[error("the connection broke")]
    Broken,
    #[error("not the leader")]
    LeadershipLost,
    #[error("the controller is stopping")]
    Stopping,
    #[error("the token has expired; dial again with the next one")]
    TokenExpired,
    #[error("the pod has begun another stream")]
    Superseded,
    #[error("too many dataplanes greet at a time; dial again")]
    Busy,
    #[error("no Hello came in time")]
    NoHello,
    #[error("the first message is no Hello")]
    NotHello,
    #[error("the Hello cannot be read: {0}")]
    BadHello(BadHello),
    #[error("a message came that answers nothing")]
    Unexpected,
    #[error("a message is longer than {} bytes", push::MAX_MESSAGE_BYTES)]
    TooLong,
    #[error("a message cannot be read")]
    Unreadable,
    #[error("the controller failed at it; its log says how")]
    Failed,
    #[error("the dataplane reads too slowly")]
    TooSlow,
    #[error("an update was not answered in time")]
    Unanswered,
}

impl Ended {
    /// The metric label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::LeadershipLost => "leadership_lost",
            Self::Stopping => "stopping",
            Self::TokenExpired => "token_expired",
            Self::Superseded => "superseded",
            Self::Busy => "busy",
            Self::NoHello => "no_hello",
            Self::NotHello => "not_hello",
            Self::BadHello(_) => "bad_hello",
            Self::Unexpected => "unexpected_message",
            Self::TooLong => "message_too_long",
            Self::Unreadable => "message_unreadable",
            Self::Failed => "failed",
            Self::TooSlow => "too_slow",
            Self::Unanswered => "unanswered",
        }
    }

    /// The last word to the dataplane.
    pub(super) fn status(self) -> Status {
        let code = match self {
            Self::Closed | Self::Broken => Code::Cancelled,
            Self::LeadershipLost | Self::Stopping | Self::Busy => Code::Unavailable,
            Self::TokenExpired => Code::Unauthenticated,
            Self::Superseded => Code::Aborted,
            Self::NotHello | Self::BadHello(_) | Self::Unexpected | Self::Unreadable => {
                Code::InvalidArgument
            }
            Self::TooLong => Code::OutOfRange,
            Self::Failed => Code::Internal,
            Self::NoHello | Self::TooSlow | Self::Unanswered => Code::DeadlineExceeded,
        };
        Status::new(code, self.to_string())
    }
}
