//! Reads Secrets one by one, a few at a time, in the order of `secret_queue`.
//!
//! In: what to read. Out: one [`Answer`] for each; who asks decides what a failure leads to. A read that panics is an answer too, so
//! that no Secret is waited for in vain and no content of one ends the process.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1;
use kube::Client;
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::failure::Failure;
use crate::quietly::{absent_or, quietly};
use crate::secret_queue::SecretQueue;
use crate::secrets::{Read, Ticket};
use crate::store::{Object, ObjectKey};

/// Requests at once: enough to read 10,000 Secrets in seconds, few enough for API Priority and Fairness.
const AT_ONCE: usize = 16;

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
    let path = format!("/api/v1/namespaces/{}/secrets/{}", key.namespace, key.name);
    let read = quietly::<v1::Secret>(client, http::Request::get(path), Bytes::new());
    match absent_or(read.await) {
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
