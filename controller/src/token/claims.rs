//! What a token says of itself, before anybody has vouched for it.
//!
//! A `ServiceAccount` token is a JWT (RFC 7519). The signature is not looked at: that, and whether the pod still exists, the API
//! server alone knows. Whoever forges all of this is stopped by the review; whoever does not is stopped here, for free.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

use super::{ServiceAccount, TokenError};

/// What is read of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    audiences: Vec<String>,
    subject: String,
    pub(super) expires: Timestamp,
    pub(super) pod_uid: String,
}

#[derive(Deserialize)]
struct Payload {
    aud: Audience,
    sub: String,
    exp: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

/// RFC 7519 §4.1.3: one, or an array of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<BoundPod>,
}

#[derive(Deserialize)]
struct BoundPod {
    uid: String,
}

impl Claims {
    pub(super) fn read(token: &str) -> Result<Self, TokenError> {
        let parts = token.split('.').collect::<Vec<_>>();
        let [header, payload, signature] = parts[..] else {
            return Err(TokenError::Malformed);
        };
        if header.is_empty() || signature.is_empty() {
            return Err(TokenError::Malformed);
        }
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload);
        let payload = payload.map_err(|_| TokenError::Malformed)?;
        let Payload {
            aud,
            sub,
            exp,
            kubernetes,
        } = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        let pod = kubernetes.and_then(|kubernetes| kubernetes.pod);
        Ok(Self {
            audiences: match aud {
                Audience::One(audience) => vec![audience],
                Audience::Several(audiences) => audiences,
            },
            subject: sub,
            expires: Timestamp::from_second(exp).map_err(|_| TokenError::Malformed)?,
            // Empty is no uid; `check` refuses it after what is more telling.
            pod_uid: pod.map(|pod| pod.uid).unwrap_or_default(),
        })
    }

    pub(super) fn check(
        &self,
        expected: &ServiceAccount,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        check_audience(&self.audiences)?;
        check_subject(&self.subject, expected)?;
        if self.pod_uid.is_empty() {
            return Err(TokenError::NoPod);
        }
        if self.expires <= now {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

pub(super) fn check_audience(audiences: &[String]) -> Result<(), TokenError> {
    if audiences
        .iter()
        .any(|audience| audience == push::TOKEN_AUDIENCE)
    {
        Ok(())
    } else {
        Err(TokenError::Audience)
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`, as a token's subject and as a user's name.
pub(super) fn check_subject(subject: &str, expected: &ServiceAccount) -> Result<(), TokenError> {
    let account = subject.strip_prefix("system:serviceaccount:");
    let Some((namespace, name)) = account.and_then(|account| account.split_once(':')) else {
        return Err(TokenError::NoServiceAccount);
    };
    if namespace != expected.namespace {
        return Err(TokenError::Namespace);
    }
    if name != expected.name {
        return Err(TokenError::ServiceAccount);
    }
    Ok(())
}
