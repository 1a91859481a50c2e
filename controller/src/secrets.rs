//! Which Secrets are to be read, and when. Pure; `secret_reader` does the reading.
//!
//! In: the names and versions of all TLS Secrets as they are watched, the Secrets that routes refer to, and answers. Out: what to
//! read next. A referenced Secret is read once for each version that the watch shows, one request at a time. One that the watch
//! does not show is read too: it may be there with another type, which its author wants to be told. Of Secrets that nothing refers
//! to only the version is known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::store::ObjectKey;

/// Waits between tries for one Secret: soon after a hiccup; at most this long after RBAC was given back.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];

/// Names one state of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretVersion {
    pub(crate) uid: Arc<str>,
    pub(crate) version: Arc<str>,
}

/// What is known of each Secret.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// What the watch shows.
    listed: BTreeMap<ObjectKey, SecretVersion>,
    referenced: BTreeMap<ObjectKey, Record>,
}

/// How far the reading of a referenced Secret is.
#[derive(Debug, Default)]
struct Record {
    /// What the watch showed when the last answer was asked for; nothing before the first answer.
    answered: Option<Shown>,
    /// What the watch showed when the request that is under way was made.
    asked: Option<Shown>,
    /// Whether the API server refused to answer. It is asked again, but the first publish does not wait for that: it may refuse
    /// for good, and what one route refers to must not hold up all others.
    refused: bool,
    backoff: Option<Backoff>,
}

/// What the watch shows of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Nothing,
    Version(SecretVersion),
}

/// What to do after the references changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Referenced {
    pub(crate) read: Vec<ObjectKey>,
    /// Nothing refers to them any more.
    pub(crate) forget: Vec<ObjectKey>,
}

impl Secrets {
    /// The watch shows a Secret. Returns whether to read it.
    pub(crate) fn seen(&mut self, key: &ObjectKey, version: SecretVersion) -> bool {
        self.listed.insert(key.clone(), version);
        self.ask(key)
    }

    /// The watch shows it no more. Returns whether to read it: another type may have taken its place.
    pub(crate) fn gone(&mut self, key: &ObjectKey) -> bool {
        self.listed.remove(key);
        self.ask(key)
    }

    pub(crate) fn is_referenced(&self, key: &ObjectKey) -> bool {
        self.referenced.contains_key(key)
    }

    /// Routes refer to these and no others.
    pub(crate) fn refer(&mut self, keys: &BTreeSet<ObjectKey>) -> Referenced {
        let known = self.referenced.keys();
        let forget = known
            .filter(|key| !keys.contains(*key))
            .cloned()
            .collect::<Vec<_>>();
        for key in &forget {
            self.referenced.remove(key);
        }
        let mut read = Vec::new();
        for key in keys {
            if !self.referenced.contains_key(key) {
                self.referenced.insert(key.clone(), Record::default());
                self.ask(key);
                read.push(key.clone());
            }
        }
        Referenced { read, forget }
    }

    /// The request that was made last for this Secret was answered for good. Returns whether to ask again, because the watch has
    /// shown another version since.
    pub(crate) fn answered(&mut self, key: &ObjectKey) -> bool {
        let Some(record) = self.referenced.get_mut(key) else {
            return false;
        };
        if let Some(asked) = record.asked.take() {
            record.answered = Some(asked);
        }
        record.backoff = None;
        self.ask(key)
    }

    /// The request that was made last failed. Returns how long to wait before the next; nothing if nobody refers to it any more.
    pub(crate) fn failed(&mut self, key: &ObjectKey, refused: bool) -> Option<Duration> {
        let record = self.referenced.get_mut(key)?;
        record.refused |= refused;
        let [least, most] = RETRY;
        Some(
            record
                .backoff
                .get_or_insert_with(|| Backoff::new(least, most))
                .next(),
        )
    }

    /// Whether every referenced Secret had an answer at least once.
    pub(crate) fn all_answered(&self) -> bool {
        let mut records = self.referenced.values();
        records.all(|record| record.answered.is_some() || record.refused)
    }

    /// The referenced Secrets that the watch does not show, each marked as asked for: no event tells when one of another type
    /// comes or goes.
    pub(crate) fn ask_unlisted(&mut self) -> Vec<ObjectKey> {
        let records = self.referenced.iter_mut();
        let unlisted = records
            .filter(|(key, record)| record.asked.is_none() && !self.listed.contains_key(key));
        unlisted
            .map(|(key, record)| {
                record.asked = Some(Shown::Nothing);
                key.clone()
            })
            .collect()
    }

    /// Marks a Secret as asked for if it needs to be.
    fn ask(&mut self, key: &ObjectKey) -> bool {
        let Some(record) = self.referenced.get_mut(key) else {
            return false;
        };
        let listed = self.listed.get(key).cloned();
        let shown = listed.map_or(Shown::Nothing, Shown::Version);
        let needs = record.asked.is_none() && record.answered.as_ref() != Some(&shown);
        if needs {
            record.asked = Some(shown);
        }
        needs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn version(version: &str) -> SecretVersion {
        SecretVersion {
            uid: "u".into(),
            version: version.into(),
        }
    }

    fn refer(secrets: &mut Secrets, names: &[&str]) -> [Vec<ObjectKey>; 2] {
        let Referenced { read, forget } =
            secrets.refer(&names.iter().map(|name| key(name)).collect());
        [read, forget]
    }

    #[test]
    fn only_referenced_secrets_are_read() {
        let mut secrets = Secrets::default();
        assert!(!secrets.seen(&key("a"), version("1")));
        assert!(!secrets.seen(&key("b"), version("1")));
        assert_eq!(refer(&mut secrets, &["a"]), [vec![key("a")], vec![]]);
        assert!(!secrets.seen(&key("b"), version("2")));
        assert_eq!(
            refer(&mut secrets, &["b"]),
            [vec![key("b")], vec![key("a")]]
        );
    }

    #[test]
    fn each_version_is_read_once_and_one_request_runs_at_a_time() {
        let mut secrets = Secrets::default();
        secrets.seen(&key("a"), version("1"));
        refer(&mut secrets, &["a"]);
        assert!(
            !secrets.seen(&key("a"), version("2")),
            "a request is under way"
        );
        assert!(
            secrets.answered(&key("a")),
            "it may have been for the old version"
        );
        assert!(!secrets.answered(&key("a")));
        assert!(!secrets.seen(&key("a"), version("2")));
        assert!(secrets.seen(&key("a"), version("3")));
    }

    #[test]
    fn what_the_watch_does_not_show_is_read_too() {
        let mut secrets = Secrets::default();
        assert_eq!(refer(&mut secrets, &["a"]), [vec![key("a")], vec![]]);
        assert!(!secrets.answered(&key("a")));
        assert_eq!(secrets.ask_unlisted(), [key("a")]);
        assert!(secrets.ask_unlisted().is_empty(), "a request is under way");
        secrets.answered(&key("a"));
        assert!(secrets.seen(&key("a"), version("1")));
        secrets.answered(&key("a"));
        assert!(secrets.ask_unlisted().is_empty());
        assert!(secrets.gone(&key("a")));
    }

    #[test]
    fn all_are_answered_when_each_was_once() {
        let mut secrets = Secrets::default();
        assert!(secrets.all_answered());
        refer(&mut secrets, &["a", "b"]);
        secrets.answered(&key("a"));
        assert!(!secrets.all_answered());
        secrets.answered(&key("b"));
        assert!(secrets.all_answered());
        secrets.seen(&key("a"), version("2"));
        assert!(
            secrets.all_answered(),
            "a new version does not close the gate again"
        );
    }

    #[test]
    fn a_failure_is_tried_again_and_only_a_refusal_opens_the_gate() {
        let mut secrets = Secrets::default();
        refer(&mut secrets, &["a"]);
        assert!(secrets.failed(&key("a"), false).is_some());
        assert!(!secrets.all_answered());
        assert!(secrets.failed(&key("a"), true).is_some());
        assert!(secrets.all_answered());
        assert!(
            !secrets.seen(&key("a"), version("1")),
            "a request is under way"
        );
        assert!(secrets.answered(&key("a")));
        refer(&mut secrets, &[]);
        assert_eq!(secrets.failed(&key("a"), false), None);
    }

    #[test]
    fn an_answer_for_a_forgotten_secret_is_nothing() {
        let mut secrets = Secrets::default();
        refer(&mut secrets, &["a"]);
        refer(&mut secrets, &[]);
        assert!(!secrets.answered(&key("a")));
        assert!(!secrets.is_referenced(&key("a")));
    }
}
