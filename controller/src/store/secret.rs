//! A `kubernetes.io/tls` Secret on our side of the border.
//!
//! In: the Kubernetes object with its raw bytes. Out: a parsed certificate, or why there is none. The raw bytes are wiped; the key
//! lives on only inside the certificate, whose Debug does not show it. No error repeats any content.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use route_table::{Certificate, CertificateError};
use zeroize::Zeroize;

use super::ObjectKey;

/// The type that a Secret needs to be used as a certificate.
const TLS_TYPE: &str = "kubernetes.io/tls";

/// A Secret, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub key: ObjectKey,
    pub certificate: Result<Arc<Certificate>, SecretError>,
}

/// Why a Secret that exists holds no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("is not of type kubernetes.io/tls")]
    Type,
    #[error("has no {0}")]
    Missing(&'static str),
    #[error("cannot be used: {0}")]
    Certificate(CertificateError),
}

impl Secret {
    /// `stringData` wins over `data`, as in the API server.
    pub(super) fn parse(key: ObjectKey, secret: v1::Secret) -> Self {
        let mut values = secret.data.unwrap_or_default();
        for (name, text) in secret.string_data.unwrap_or_default() {
            let replaced = values.insert(name, k8s_openapi::ByteString(text.into_bytes()));
            if let Some(mut bytes) = replaced {
                bytes.0.zeroize();
            }
        }
        let value = |name| {
            let bytes = values.get(name).map(|bytes| bytes.0.as_slice());
            bytes.ok_or(SecretError::Missing(name))
        };
        let certificate = if secret.type_.as_deref() == Some(TLS_TYPE) {
            value("tls.crt").and_then(|chain| {
                Certificate::from_pem(chain, value("tls.key")?)
                    .map(Arc::new)
                    .map_err(SecretError::Certificate)
            })
        } else {
            Err(SecretError::Type)
        };
        for bytes in values.values_mut() {
            bytes.0.zeroize();
        }
        Self { key, certificate }
    }
}
