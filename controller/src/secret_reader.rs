//! Reads Secrets one by one, a few at a time.
//!
//! In: the key of a Secret. Out: one [`Answer`] for it on a bounded channel; who asks decides what a failure leads to. The body is read here and not by kube, which logs a body that it
//! cannot decode; it is wiped when it was read, and nothing of it is ever repeated in an error.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1;
use kube::Client;
use kube::client::Body;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::store::{Object, ObjectKey};

/// Requests at once: enough to read 10,000 Secrets in seconds, few enough for API Priority and Fairness.
const AT_ONCE: usize = 16;
/// Longest wait for one answer.
const REQUEST: Duration = Duration::from_secs(10);
/// A Secret is at most 1 MiB; base64 and the rest of the object come on top.
const MAX_BODY: usize = 4 << 20;

/// What was learned about a Secret.
#[derive(Debug)]
pub(crate) enum Answer {
    Present(Object),
    Absent,
    /// `refused`: by the API server, which may never give another answer.
    Failed {
        failure: Failure,
        refused: bool,
    },
}

/// Starts the reading.
#[derive(Clone)]
pub(crate) struct SecretReader {
    client: Client,
    permits: Arc<Semaphore>,
    answers: mpsc::Sender<(ObjectKey, Answer)>,
    tasks: TaskTracker,
}

impl SecretReader {
    pub(crate) fn new(
        client: Client,
        answers: mpsc::Sender<(ObjectKey, Answer)>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            client,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            answers,
            tasks,
        }
    }

    /// Reads a Secret after `wait`. One task a Secret, except that one which is forgotten and referred to again while it is being
    /// read is read twice; whichever answer is last stays until the Secret changes.
    pub(crate) fn read(&self, key: ObjectKey, wait: Duration) {
        let reader = self.clone();
        self.tasks.spawn(async move {
            sleep(wait).await;
            let answer = reader.answer(&key).await;
            // Nobody listens any more when the process ends.
            let _ = reader.answers.send((key, answer)).await;
        });
    }

    async fn answer(&self, key: &ObjectKey) -> Answer {
        // Never closed; held until the answer is there.
        let _permit = self.permits.acquire().await;
        let read = timeout(REQUEST, get(&self.client, key)).await;
        match read.unwrap_or(Err(Failure::Timeout(REQUEST))) {
            Ok(Some(secret)) => Answer::Present(secret.into()),
            Ok(None) => Answer::Absent,
            Err(failure) => {
                let refused =
                    matches!(failure.code(), Some(400..=499)) && failure.code() != Some(429);
                Answer::Failed { failure, refused }
            }
        }
    }
}

/// One Secret; nothing if there is none.
async fn get(client: &Client, key: &ObjectKey) -> Result<Option<v1::Secret>, Failure> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", key.namespace, key.name);
    let request = http::Request::get(path).body(Body::empty());
    let request = request.map_err(|_| Failure::Unreadable)?;
    let response = client.send(request).await?;
    let status = response.status();
    let mut body = Zeroizing::new(Vec::new());
    let mut frames = response.into_body();
    while let Some(frame) = frames.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if body.len() + data.len() > MAX_BODY {
            return Err(Failure::Unreadable);
        }
        grow(&mut body, data.len());
        body.extend_from_slice(&data);
    }
    match status.as_u16() {
        200 => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|_| Failure::Unreadable),
        404 => Ok(None),
        code => Err(refusal(code, &body)),
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

/// The API server's own words about a refusal; they hold names only.
fn refusal(code: u16, body: &[u8]) -> Failure {
    let status = serde_json::from_slice::<kube::core::Status>(body).unwrap_or_default();
    let status = kube::core::Status { code, ..status };
    kube::Error::Api(status.boxed()).into()
}
