//! Who a dataplane is: the `ServiceAccount` token that it shows, proved by the API server.
//!
//! In: the metadata of a call and the address it came from. Out: the `Pod` that the token was made for, and until when that holds;
//! or a `TokenError`. What the token says of itself is read first and trusted in nothing: it only turns away whom the API server
//! would turn away as well (`claims`). Then a `TokenReview` decides. Its verdict is kept for a minute at most, several streams that
//! show the same token wait for one review, and reviews are counted against the address and in all (`rate`): a stranger with a
//! thousand forged tokens costs the API server a bounded rate, and does not use up what belongs to others.
//!
//! A stream ends when its token does; the dataplane then dials again with the token that it has by then.

mod claims;
mod rate;
mod review;
#[cfg(test)]
mod tests;
mod verdicts;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::failure::Failure;
use claims::Claims;
use rate::ReviewRate;
use verdicts::{Verdict, Verdicts};

/// Most bytes of a token. A projected token with a node binding is about 1.5 kB.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// The `ServiceAccount` that dataplanes run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

/// A dataplane pod, proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: Arc<str>,
    pub(crate) name: Arc<str>,
    /// When the token ends that proved it.
    pub(crate) proven_until: Instant,
}

/// Why a token proves nothing. None of these repeats any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("there is no token in the metadata `authorization`")]
    Missing,
    #[error(
        "the metadata `authorization` is not one bearer token of at most {MAX_TOKEN_BYTES} bytes"
    )]
    Malformed,
    #[error("the token is for another audience than {}", push::TOKEN_AUDIENCE)]
    Audience,
    #[error("the token is of no ServiceAccount")]
    NoServiceAccount,
    #[error("the token is of a ServiceAccount in another namespace")]
    Namespace,
    #[error("the token is of another ServiceAccount")]
    ServiceAccount,
    #[error("the token names no pod")]
    NoPod,
    #[error("the token has expired")]
    Expired,
    #[error("the API server does not know the token")]
    Denied,
    #[error("the pod or ServiceAccount of the token is gone")]
    Revoked,
    #[error("too many tokens wait for a review; try again later")]
    Throttled,
    #[error("the token could not be reviewed: {0}")]
    Unreviewed(Failure),
}

impl TokenError {
    /// The metric label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Audience => "token_audience",
            Self::NoServiceAccount => "token_no_service_account",
            Self::Namespace => "token_namespace",
            Self::ServiceAccount => "token_service_account",
            Self::NoPod => "token_no_pod",
            Self::Expired => "token_expired",
            Self::Denied => "token_denied",
            Self::Revoked => "token_revoked",
            Self::Throttled => "token_throttled",
            Self::Unreviewed(_) => "token_unreviewed",
        }
    }

    /// What the dataplane is told. It may try again after the last two with the same token.
    pub(crate) fn status(&self) -> tonic::Status {
        match self {
            Self::Missing
            | Self::Malformed
            | Self::Audience
            | Self::Expired
            | Self::Denied
            | Self::Revoked => tonic::Status::unauthenticated(self.to_string()),
            Self::NoServiceAccount | Self::Namespace | Self::ServiceAccount | Self::NoPod => {
                tonic::Status::permission_denied(self.to_string())
            }
            Self::Throttled => tonic::Status::resource_exhausted(self.to_string()),
            // What the API server said is for the controller's own log.
            Self::Unreviewed(_) => tonic::Status::unavailable("the token could not be reviewed"),
        }
    }
}

/// Checks tokens.
pub struct Tokens {
    client: Client,
    expected: ServiceAccount,
    verdicts: Verdicts,
    rate: ReviewRate,
    /// Whether the last review failed.
    failing: AtomicBool,
    reviews: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Tokens {
    pub fn new(client: Client, expected: ServiceAccount, registry: &mut Registry) -> Self {
        let reviews = Family::default();
        registry.register(
            "token_reviews",
            "TokenReviews that the API server was asked for, by outcome",
            reviews.clone(),
        );
        Self {
            client,
            expected,
            verdicts: Verdicts::default(),
            rate: ReviewRate::new(Instant::now()),
            failing: AtomicBool::new(false),
            reviews,
        }
    }

    /// The pod that a call comes from.
    pub(crate) async fn prove(
        &self,
        metadata: &MetadataMap,
        peer: IpAddr,
    ) -> Result<Pod, TokenError> {
        let token = bearer(metadata)?;
        let claims = Claims::read(token)?;
        let now = Timestamp::now();
        claims.check(&self.expected, now)?;
        let left = claims.expires.duration_since(now);
        let proven_until = Instant::now() + left.try_into().map_err(|_| TokenError::Expired)?;

        let digest = Sha256::digest(token).into();
        let review = self.review(token, &claims, peer);
        let verdict = self.verdicts.get_or(digest, proven_until, review).await;
        let (uid, name) = verdict?;
        Ok(Pod {
            uid,
            name,
            proven_until,
        })
    }

    async fn review(&self, token: &str, claims: &Claims, peer: IpAddr) -> Verdict {
        if !self.rate.take(peer, Instant::now()) {
            return Err(TokenError::Throttled);
        }
        let reviewed = review::review(&self.client, token).await;
        let verdict = reviewed.and_then(|status| review::judge(status, &self.expected, claims));
        self.say_whether_reviews_work(&verdict);
        let outcome = verdict
            .as_ref()
            .map_or_else(TokenError::label, |_| "accepted");
        self.reviews.get_or_create(&[("outcome", outcome)]).inc();
        verdict
    }

    /// Once each time: without reviews no dataplane gets in, and an operator must know.
    fn say_whether_reviews_work(&self, verdict: &Verdict) {
        let failed = match verdict {
            Err(TokenError::Unreviewed(failure)) => Some(failure),
            Ok(_) | Err(_) => None,
        };
        let failing = self.failing.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(failure) if !failing => {
                tracing::error!(%failure, "tokens cannot be reviewed, dataplanes cannot connect");
            }
            None if failing => tracing::info!("tokens can be reviewed again"),
            Some(_) | None => {}
        }
    }
}

/// The token of exactly one `authorization: Bearer ...` (RFC 6750 §2.1; the scheme in any case, RFC 9110 §11.1).
fn bearer(metadata: &MetadataMap) -> Result<&str, TokenError> {
    let mut values = metadata.get_all("authorization").iter();
    let value = values.next().ok_or(TokenError::Missing)?;
    if values.next().is_some() || value.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let text = value.to_str().map_err(|_| TokenError::Malformed)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        Some(_) | None => Err(TokenError::Malformed),
    }
}
