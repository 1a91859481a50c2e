//! One stream: Hello, Welcome, then updates until it ends.
//!
//! An update is applied whole or refused whole; after each, the Ack names what is not served as it was sent. The table is
//! swapped before the Ack leaves, so that `Programmed` never runs ahead of what is served.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::unfold;
use push::wire::from_controller::Message as FromController;
use push::wire::from_dataplane::Message as FromDataplane;
use push::wire::{self, Update};
use push::{Fence, FenceVerdict};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::Receiver;
use super::apply::{self, Step};
use super::dial::{self, DialError};

/// From the open channel to the leader's Welcome; the controller asks the API server about our token in between.
const WELCOME: Duration = Duration::from_secs(15);
/// Answers that wait to be sent: one an update, and the next update comes after it.
const ANSWERS: usize = 4;
/// Most bytes of a token; real ones have 1 to 2 KiB.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;

/// A stream that was followed has ended.
pub(super) struct Ended {
    pub(super) reason: String,
}

/// Why a controller was not followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFollowed {
    #[error("not the leader")]
    NotTheLeader,
    #[error("the dial failed")]
    Dial(#[from] DialError),
    #[error("the token cannot be read")]
    TokenFile(#[source] io::Error),
    #[error("the token file does not hold a token")]
    Token,
    #[error("the controller refused this dataplane: {}", .0.message())]
    Refused(Status),
    #[error("the stream failed: {}", .0.message())]
    Stream(Status),
    #[error("no Welcome within {WELCOME:?}")]
    NoWelcome,
    #[error("the first message is not a Welcome with a fence")]
    BadWelcome,
    #[error("an earlier leader than the one that was followed last")]
    Stale,
}

impl NotFollowed {
    /// For `/readyz` and the log.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::NotTheLeader => "no controller leads",
            Self::Dial(_) => "no controller can be reached",
            Self::TokenFile(_) | Self::Token => "the token cannot be read",
            Self::Refused(_) => "the controller refused this dataplane",
            Self::Stream(_) | Self::NoWelcome | Self::BadWelcome => "the stream failed",
            Self::Stale => "only an earlier leader answers",
        }
    }
}

type Updates = tonic::Streaming<wire::FromController>;

impl Receiver {
    /// Dials one controller and follows it to the end of the stream.
    pub(super) async fn follow(&mut self, address: SocketAddr) -> Result<Ended, NotFollowed> {
        let token = read_token(&self.config.token_file).await?;
        let channel = dial::connect(address, &self.config.ca_file).await?;
        let (answers, outgoing) = mpsc::channel(ANSWERS);
        let hello = self.held.hello(&self.config.pod, env!("CARGO_PKG_VERSION"));
        // The channel is new and holds several.
        let _ = answers.try_send(wire::FromDataplane {
            message: Some(FromDataplane::Hello(hello)),
        });
        let outgoing = unfold(outgoing, |mut outgoing| async {
            outgoing.recv().await.map(|message| (message, outgoing))
        });
        let mut request = Request::new(outgoing);
        request.metadata_mut().insert("authorization", token);
        let welcoming = async {
            let mut updates = push::client(channel)
                .connect(request)
                .await
                .map_err(not_followed)?
                .into_inner();
            let first = updates
                .message()
                .await
                .map_err(not_followed)?
                .and_then(|first| first.message);
            Ok::<_, NotFollowed>((first, updates))
        };
        let (first, updates) = timeout(WELCOME, welcoming)
            .await
            .map_err(|_| NotFollowed::NoWelcome)??;
        let Some(FromController::Welcome(welcome)) = first else {
            return Err(NotFollowed::BadWelcome);
        };
        self.accept(
            Fence::from_welcome(welcome).ok_or(NotFollowed::BadWelcome)?,
            address,
        )?;
        self.following();
        Ok(Ended {
            reason: self.take_updates(updates, &answers).await,
        })
    }

    /// Never goes back within one Lease; another Lease is taken from a leader that TLS has proven to be a controller.
    fn accept(&mut self, fence: Fence, address: SocketAddr) -> Result<(), NotFollowed> {
        match Fence::judge(self.followed.as_ref(), &fence) {
            FenceVerdict::Follow => {
                tracing::info!(%address, transitions = fence.transitions, "following the leader");
            }
            FenceVerdict::FollowNewLease => {
                tracing::warn!(%address, lease = %fence.lease_uid, "following the leader of another Lease than before");
            }
            FenceVerdict::Stale => return Err(NotFollowed::Stale),
        }
        self.followed = Some(fence);
        Ok(())
    }

    /// Applies updates until the stream ends; returns why it did.
    async fn take_updates(
        &mut self,
        mut updates: Updates,
        answers: &mpsc::Sender<wire::FromDataplane>,
    ) -> String {
        loop {
            let update = match updates.message().await {
                Ok(Some(wire::FromController {
                    message: Some(FromController::Update(update)),
                })) => update,
                // A message of a later version of the protocol that asks nothing of us.
                Ok(Some(wire::FromController { message: None })) => continue,
                Ok(Some(wire::FromController {
                    message: Some(FromController::Welcome(_)),
                })) => return "a second Welcome".into(),
                Ok(None) => return "the controller ended it".into(),
                Err(status) => return status.message().to_owned(),
            };
            let message = match self.answer(update).await {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "applying an update failed; the last table is served on");
                    return "an update could not be applied".into();
                }
            };
            if answers
                .send(wire::FromDataplane {
                    message: Some(message),
                })
                .await
                .is_err()
            {
                return "answers cannot be sent any more".into();
            }
        }
    }

    /// Applies one part of an update; the answer, if one is due. Meanwhile the worker goes on with its sockets, and HTTP/2 with its
    /// pings. The next part is not looked at before this one is done.
    pub(super) async fn answer(
        &mut self,
        update: Update,
    ) -> Result<Option<FromDataplane>, JoinError> {
        let mut held = mem::take(&mut self.held);
        let previous = self.tables.borrow().clone();
        let applying = spawn_blocking(move || {
            let step = apply::apply(&mut held, update, &previous);
            (held, step)
        });
        // If it fails, nothing is held any more and the next stream brings everything; the table is served on.
        let (held, step) = applying.await?;
        self.held = held;
        Ok(match step {
            Step::Pending => None,
            Step::Applied { built, ack } => {
                // Before the Ack: what was acknowledged is served.
                self.swap(built);
                Some(FromDataplane::Ack(ack))
            }
            Step::Refused(nack) => Some(FromDataplane::Nack(nack)),
        })
    }
}

fn not_followed(status: Status) -> NotFollowed {
    match status.code() {
        Code::Unavailable if status.message() == push::NOT_THE_LEADER => NotFollowed::NotTheLeader,
        Code::Unauthenticated | Code::PermissionDenied => NotFollowed::Refused(status),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => NotFollowed::Stream(status),
    }
}

async fn read_token(file: &Path) -> Result<MetadataValue<Ascii>, NotFollowed> {
    let bytes = Zeroizing::new(
        read_bounded(file, MAX_TOKEN_BYTES)
            .await
            .map_err(NotFollowed::TokenFile)?,
    );
    let token = std::str::from_utf8(&bytes)
        .map_err(|_| NotFollowed::Token)?
        .trim();
    if token.is_empty() {
        return Err(NotFollowed::Token);
    }
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let mut value = MetadataValue::try_from(bearer.as_str()).map_err(|_| NotFollowed::Token)?;
    // Debug prints "Sensitive", and HTTP/2 keeps it out of its compression table.
    value.set_sensitive(true);
    Ok(value)
}

/// A whole file, unless it is longer than `limit`.
pub(super) async fn read_bounded(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)
        .await?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .await?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file is longer than {limit} bytes"),
        ));
    }
    Ok(bytes)
}
