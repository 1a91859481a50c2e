//! Reads Secrets one by one, a few at a time, in the order of `secret_queue`.
//!
//! In: what to read. Out: one [`Answer`] for each; who asks decides what a failure leads to. A read that panics is an answer too, so
//! that no Secret is waited for in vain and no content of one ends the process. The body is read here and not by kube, which logs a
//! body that it cannot decode; it is wiped when it was read, and nothing of it is ever repeated in an error.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1;
use kube::Client;
use kube::client::Body;
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::secret_queue::SecretQueue;
use crate::secrets::{Read, Ticket};
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
    /// `refused`: by the API server, or by what reads the answer here. There may never be another one, so that nothing waits for it.
    Failed {
        failure: Failure,
        refused: bool,
    },
}

/// An answer, and what it is the answer to.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) key: ObjectKey,
    pub(crate) ticket: Ticket,
    pub(crate) answer: Answer,
}

/// Everything that is being read or waits for it.
pub(crate) struct SecretReader {
    client: Client,
    queue: SecretQueue,
    running: JoinSet<Answer>,
    /// What each task reads.
    reads: HashMap<task::Id, Read>,
    /// One task a Secret.
    by_key: BTreeMap<ObjectKey, AbortHandle>,
}

impl SecretReader {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            queue: SecretQueue::new(),
            running: JoinSet::new(),
            reads: HashMap::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Reads a Secret when it is its turn, unless it is being read.
    pub(crate) fn read(&mut self, read: Read) {
        if !self.by_key.contains_key(&read.key) {
            self.queue.push(read);
        }
    }

    /// Reads a Secret when it is its turn after a wait.
    pub(crate) fn read_after(&mut self, read: Read, wait: Duration) {
        self.queue.push_later(read, Instant::now() + wait);
    }

    /// Nobody wants to know this Secret any more.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.queue.remove(key);
        if let Some(task) = self.by_key.remove(key) {
            task.abort();
        }
    }

    /// The next answer; never one while nothing is asked. It must be polled for reads to begin; cancelled, it loses nothing.
    pub(crate) async fn next(&mut self) -> Answered {
        loop {
            self.begin();
            let due = self.queue.due().filter(|_| self.running.len() < AT_ONCE);
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => {
                    if let Some(answered) = self.ended(ended) {
                        return answered;
                    }
                }
                () = due => {}
            }
        }
    }

    fn begin(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(read) = self.queue.pop(Instant::now())
        {
            let (client, key) = (self.client.clone(), read.key.clone());
            let task = self
                .running
                .spawn(async move { answer(&client, &key).await });
            self.by_key.insert(read.key.clone(), task.clone());
            self.reads.insert(task.id(), read);
        }
    }

    /// Nothing if what was read is not wanted any more.
    fn ended(&mut self, ended: Result<(task::Id, Answer), JoinError>) -> Option<Answered> {
        let (id, answer) = match ended {
            Ok((id, answer)) => (id, Some(answer)),
            Err(error) if error.is_panic() => (error.id(), Some(failed(Failure::Panicked))),
            Err(error) => (error.id(), None),
        };
        let Read { key, ticket, .. } = self.reads.remove(&id)?;
        // Another task may have taken its place since it was aborted.
        if self.by_key.get(&key).is_some_and(|task| task.id() == id) {
            self.by_key.remove(&key);
        }
        let answer = answer?;
        Some(Answered {
            key,
            ticket,
            answer,
        })
    }
}

async fn answer(client: &Client, key: &ObjectKey) -> Answer {
    let read = timeout(REQUEST, get(client, key)).await;
    match read.unwrap_or(Err(Failure::Timeout(REQUEST))) {
        Ok(Some(secret)) => Answer::Present(secret.into()),
        Ok(None) => Answer::Absent,
        Err(failure) => failed(failure),
    }
}

fn failed(failure: Failure) -> Answer {
    let refused = match &failure {
        // 429 is told to come later.
        Failure::Refused { code, .. } => (400..=499).contains(code) && *code != 429,
        // It is larger than a Secret can be, or is none: its author's doing, and no other answer may ever come.
        Failure::Unreadable | Failure::Panicked => true,
        Failure::Timeout(_) | Failure::Stalled(_) | Failure::NoVersion | Failure::Connection(_) => {
            false
        }
    };
    Answer::Failed { failure, refused }
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
