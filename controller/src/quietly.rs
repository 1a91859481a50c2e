//! One request to the API server whose bodies, which may hold keys, appear in no log and no error.
//!
//! Not by kube's typed client, which logs a body that it cannot decode. What is read here is wiped, frame by frame; the HTTP and TLS layers below
//! keep copies that cannot be reached.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zeroize::{Zeroize as _, Zeroizing};

use crate::failure::Failure;

/// Longest wait for one answer.
const REQUEST: Duration = Duration::from_secs(10);
/// Most bytes of an answer: a Secret is at most 1 MiB, base64 and the rest of the object come on top.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Sends the request, and reads the answer as `T`.
pub(crate) async fn quietly<T: DeserializeOwned>(
    client: &Client,
    request: http::request::Builder,
    body: Bytes,
) -> Result<T, Failure> {
    let request = request.header(http::header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body));
    let request = request.map_err(|_| Failure::Unreadable)?;
    timeout(REQUEST, ask(client, request))
        .await
        .unwrap_or(Err(Failure::Timeout(REQUEST)))
}

/// Nothing where the API server has none.
pub(crate) fn absent_or<T>(found: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.code() == Some(404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Body>,
) -> Result<T, Failure> {
    let response = client.send(request).await?;
    let status = response.status();
    let mut body = Zeroizing::new(Vec::new());
    let mut frames = response.into_body();
    while let Some(frame) = frames.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if body.len() + data.len() > MAX_BODY_BYTES {
            return Err(Failure::Unreadable);
        }
        grow(&mut body, data.len());
        body.extend_from_slice(&data);
        // Shared with the layer below if this fails.
        if let Ok(mut data) = data.try_into_mut() {
            data.zeroize();
        }
    }
    if status.is_success() {
        serde_json::from_slice(&body).map_err(|_| Failure::Unreadable)
    } else {
        Err(refusal(status.as_u16(), &body))
    }
}

/// Makes room without leaving a copy behind, as `Vec` would when it moves.
fn grow(body: &mut Zeroizing<Vec<u8>>, more: usize) {
    if body.capacity() - body.len() >= more {
        return;
    }
    let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + more).next_power_of_two()));
    larger.extend_from_slice(body);
    *body = larger;
}

/// The API server's own words; they hold names only, and never what another answer held.
fn refusal(code: u16, body: &[u8]) -> Failure {
    let status = serde_json::from_slice::<kube::core::Status>(body).unwrap_or_default();
    let status = kube::core::Status { code, ..status };
    kube::Error::Api(status.boxed()).into()
}
