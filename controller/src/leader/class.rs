//! Whether another installation serves our class: two of them would write the same statuses, each against the other.
//!
//! Every installation has a `ClusterRole` (the one for `TokenReview`) that says in annotations which class it serves, in which
//! namespaces, and by which Lease its replicas agree: its mark. Of two marks that overlap the older one has the class. Nobody
//! without rights over the whole cluster can make, change or hide one, and the age is the API server's word.
//!
//! A mark says nothing of whether anybody runs: what was stopped and not uninstalled keeps its class, and the words of [`Verdict`]
//! say how to end that. Whoever has no mark of its own, because its roles were made by hand, comes after everybody who has.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::args::ObjectName;
use crate::failure::Failure;

/// Label of the marks, to find them. The class is no label: it may be longer than the 63 characters of one.
const LABEL: &str = "ws-ingress.dev/mark=true";
/// Annotation with the class.
const CLASS: &str = "ws-ingress.dev/class";
/// Annotation with the Lease, as namespace/name.
const LEASE: &str = "ws-ingress.dev/lease";
/// Annotation with the namespaces that are watched, separated by ','; empty or absent if it is all of them.
const NAMESPACES: &str = "ws-ingress.dev/watch-namespaces";
/// Longest wait for one page.
const REQUEST: Duration = Duration::from_secs(2);
/// Marks in a page, and most pages; a cluster has a handful of installations.
const PAGE: u32 = 500;
const MOST_PAGES: usize = 4;

/// What an installation serves, and which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    lease: String,
    class: String,
    /// All if there are none.
    namespaces: BTreeSet<String>,
}

impl Claim {
    pub(crate) fn new(lease: &ObjectName, class: String, namespaces: Vec<String>) -> Self {
        Self {
            lease: format!("{}/{}", lease.namespace, lease.name),
            class,
            namespaces: namespaces.into_iter().collect(),
        }
    }

    fn read(metadata: &ObjectMeta) -> Option<Self> {
        let annotations = metadata.annotations.as_ref()?;
        let namespaces = annotations.get(NAMESPACES).map_or("", String::as_str);
        let namespaces = namespaces.split(',').filter(|name| !name.is_empty());
        Some(Self {
            lease: annotations.get(LEASE)?.clone(),
            class: annotations.get(CLASS)?.clone(),
            namespaces: namespaces.map(ToOwned::to_owned).collect(),
        })
    }

    /// Whether a route could be of both.
    fn overlaps(&self, other: &Self) -> bool {
        let everywhere = self.namespaces.is_empty() || other.namespaces.is_empty();
        let shared = || !self.namespaces.is_disjoint(&other.namespaces);
        self.class == other.class && (everywhere || shared())
    }
}

/// What came of a look at the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The class is ours.
    Free,
    /// Somebody else has the class; who, and what to do about it.
    Held(String),
}

/// Why the marks are not known.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("there are more than {} of them", PAGE as usize * MOST_PAGES)]
    TooMany,
}

/// Looks at the marks of other installations.
pub(crate) struct Rivals {
    marks: Api<ClusterRole>,
    claim: Claim,
    /// Of the last look that showed anything.
    last: Option<Verdict>,
    failing: bool,
}

impl Rivals {
    pub(crate) fn new(client: Client, claim: Claim) -> Self {
        Self {
            marks: Api::all(client),
            claim,
            last: None,
            failing: false,
        }
    }

    /// Looks once. What cannot be seen is taken to be as it was; if nothing ever was seen, that is no evidence of anybody.
    pub(super) async fn look(&mut self) -> Verdict {
        let listed = self.list().await;
        let failing = listed.is_err();
        match listed {
            Ok(marks) => self.learn(self.claim.judge(&marks)),
            Err(error) if !self.failing => {
                let taken_for = match self.last {
                    Some(_) => "what was seen last holds",
                    None => "the class is taken for free",
                };
                tracing::warn!(%error, taken_for, "whether another installation serves this class cannot be seen");
            }
            Err(_) => {}
        }
        self.failing = failing;
        self.last.clone().unwrap_or(Verdict::Free)
    }

    fn learn(&mut self, verdict: Verdict) {
        match (&self.last, &verdict) {
            (Some(Verdict::Held(before)), Verdict::Held(now)) if before == now => {}
            (_, Verdict::Held(reason)) => {
                tracing::error!(reason, "this installation does not lead");
            }
            (Some(Verdict::Held(_)), Verdict::Free) => {
                tracing::info!("no other installation has the class any more");
            }
            (None | Some(Verdict::Free), Verdict::Free) => {}
        }
        self.last = Some(verdict);
    }

    /// The metadata of all marks.
    async fn list(&self) -> Result<Vec<ObjectMeta>, LookError> {
        let mut params = ListParams::default().labels(LABEL).limit(PAGE);
        let mut marks = Vec::new();
        for _ in 0..MOST_PAGES {
            let page = timeout(REQUEST, self.marks.list_metadata(&params)).await;
            let page = page
                .map_err(|_| Failure::Timeout(REQUEST))?
                .map_err(Failure::from)?;
            marks.extend(page.items.into_iter().map(|mark| mark.metadata));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(marks),
            }
        }
        Err(LookError::TooMany)
    }
}

impl Claim {
    /// Who of these has the class.
    fn judge(&self, marks: &[ObjectMeta]) -> Verdict {
        let read = |mark| Some((mark, Self::read(mark)?));
        let marks: Vec<_> = marks.iter().filter_map(read).collect();
        // One that says something else of us than we do ourselves protects nobody from us, and so it does not protect us either.
        let ours = marks.iter().find(|(_, claim)| claim == self);
        let our_age = ours.map(|(mark, _)| age(mark));
        let mut rivals = marks.iter().filter(|(mark, claim)| {
            let older = our_age.as_ref().is_none_or(|ours| age(mark) < *ours);
            claim.lease != self.lease && claim.overlaps(self) && older
        });
        let Some((mark, theirs)) = rivals.next() else {
            return Verdict::Free;
        };
        let (namespace, lease) = theirs.lease.split_once('/').unwrap_or(("?", &theirs.lease));
        let role = mark.name.as_deref().unwrap_or_default();
        let last = match ours {
            Some(_) => String::new(),
            None => format!(
                "; this installation comes last, because no ClusterRole with the label {LABEL} says of Lease {} what it serves",
                self.lease
            ),
        };
        Verdict::Held(format!(
            "class {} is served by the installation in namespace {namespace} (Lease {lease}), as ClusterRole {role} says: uninstall it, or give one of the two another --class{last}",
            self.class
        ))
    }
}

/// Orders marks, the oldest first; the API server's times are whole seconds.
fn age(mark: &ObjectMeta) -> impl Ord + use<> {
    let created = mark.creation_timestamp.as_ref().map(|created| created.0);
    (created, mark.uid.clone())
}

#[cfg(test)]
mod tests;
