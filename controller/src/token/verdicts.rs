//! Verdicts of the last minute, by the SHA-256 of the token, so that no token is kept.
//!
//! Who comes while the same token is under review waits for that verdict. If the one who asked goes away, the next one asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::TokenError;

/// How long a token that was accepted is not asked about again: what a deleted pod may still do.
const ACCEPTED_FOR: Duration = Duration::from_mins(1);
/// How long a token that was denied is not asked about again. Denied for good is rare: a `ServiceAccount` may be about to appear.
const DENIED_FOR: Duration = Duration::from_secs(10);
/// How long after a review that failed the same token is refused at once.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Most verdicts: four times the dataplanes that can be connected. Denied ones cannot fill it at the rate of reviews.
const MAX_VERDICTS: usize = 4096;

/// Uid and name of the pod, or why there is none.
pub(super) type Verdict = Result<(Arc<str>, Arc<str>), TokenError>;

#[derive(Default)]
pub(super) struct Verdicts {
    known: Mutex<HashMap<[u8; 32], Arc<OnceCell<Known>>>>,
}

struct Known {
    verdict: Verdict,
    until: Instant,
}

impl Verdicts {
    /// The verdict on a token that ends at `ends`, by `review` unless it is known.
    pub(super) async fn get_or(
        &self,
        digest: [u8; 32],
        ends: Instant,
        review: impl Future<Output = Verdict>,
    ) -> Verdict {
        let Some(cell) = self.cell(digest, Instant::now()) else {
            return Err(TokenError::Throttled);
        };
        let known = cell.get_or_init(|| async {
            let verdict = review.await;
            let until = match kept(&verdict) {
                Some(time) => ends.min(Instant::now() + time),
                None => Instant::now(),
            };
            Known { verdict, until }
        });
        known.await.verdict.clone()
    }

    /// The cell of a token, new if there is none that still holds; nothing if there is no room for it.
    fn cell(&self, digest: [u8; 32], now: Instant) -> Option<Arc<OnceCell<Known>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |cell: &OnceCell<Known>| cell.get().is_none_or(|known| known.until > now);
        if let Some(cell) = known.get(&digest)
            && holds(cell)
        {
            return Some(cell.clone());
        }
        if known.len() >= MAX_VERDICTS {
            // One that nobody waits for any more was given up before its verdict came.
            known.retain(|_, cell| {
                holds(cell) && (cell.initialized() || Arc::strong_count(cell) > 1)
            });
        }
        if known.len() >= MAX_VERDICTS {
            return None;
        }
        let cell = Arc::new(OnceCell::new());
        known.insert(digest, cell.clone());
        Some(cell)
    }
}

/// How long a verdict is kept; nothing if it says nothing of the token.
fn kept(verdict: &Verdict) -> Option<Duration> {
    match verdict {
        Ok(_) => Some(ACCEPTED_FOR),
        Err(
            TokenError::Missing
            | TokenError::Malformed
            | TokenError::Audience
            | TokenError::NoServiceAccount
            | TokenError::Namespace
            | TokenError::ServiceAccount
            | TokenError::NoPod
            | TokenError::Expired
            | TokenError::Denied
            | TokenError::Revoked,
        ) => Some(DENIED_FOR),
        Err(TokenError::Unreviewed(_)) => Some(FAILED_FOR),
        Err(TokenError::Throttled) => None,
    }
}
