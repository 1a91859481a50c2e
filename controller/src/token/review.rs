//! One `TokenReview`, and what its answer proves.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::authentication::v1::{
    TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use kube::Client;

use super::claims::{Claims, check_audience, check_subject};
use super::verdicts::Verdict;
use super::{ServiceAccount, TokenError};
use crate::failure::Failure;
use crate::quietly::quietly;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// What the API server adds to a user whose token is bound to a pod.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Asks the API server. The request and the answer hold the token, so nobody logs either.
pub(super) async fn review(client: &Client, token: &str) -> Result<TokenReviewStatus, TokenError> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            audiences: Some(vec![push::TOKEN_AUDIENCE.to_owned()]),
            token: Some(token.to_owned()),
        },
        ..TokenReview::default()
    };
    let body = serde_json::to_vec(&review).map_err(|_| Failure::Unreadable);
    let body = Bytes::from(body.map_err(TokenError::Unreviewed)?);
    let answer = quietly::<TokenReview>(client, http::Request::post(PATH), body).await;
    let answer = answer.map_err(TokenError::Unreviewed)?;
    answer
        .status
        .ok_or(TokenError::Unreviewed(Failure::Unreadable))
}

/// Whether the answer proves a pod of ours. An API server that knows nothing of audiences names none, and proves nothing.
pub(super) fn judge(
    status: TokenReviewStatus,
    expected: &ServiceAccount,
    claims: &Claims,
) -> Verdict {
    let TokenReviewStatus {
        audiences,
        authenticated,
        error,
        user,
    } = status;
    if authenticated != Some(true) {
        return Err(denied(error.as_deref().unwrap_or_default()));
    }
    check_audience(&audiences.unwrap_or_default())?;
    let UserInfo {
        username,
        extra,
        uid: _,
        groups: _,
    } = user.unwrap_or_default();
    check_subject(&username.unwrap_or_default(), expected)?;
    let extra = extra.unwrap_or_default();
    let one = |name| match extra.get(name).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(Arc::<str>::from(value.as_str())),
        Some(_) | None => Err(TokenError::NoPod),
    };
    let uid = one(POD_UID)?;
    // The expiry was read from the same claims; if they do not agree here, they are not what the API server has read.
    if *uid != *claims.pod_uid {
        return Err(TokenError::NoPod);
    }
    Ok((uid, one(POD_NAME)?))
}

/// The API server says why only in words. They tell two cases apart for whoever reads our metrics; every other text is a denial
/// like these.
fn denied(words: &str) -> TokenError {
    // The last one: another pod or account has taken the name.
    let gone = [
        "has been invalidated",
        "has been deleted",
        ") does not match",
    ];
    if gone.iter().any(|gone| words.contains(gone)) {
        TokenError::Revoked
    } else if words.contains("has expired") {
        TokenError::Expired
    } else {
        TokenError::Denied
    }
}
