//! One watcher: keeps listing and watching one kind in one scope, whatever happens.
//!
//! In: what to list. Out: [`Event`]s on a bounded channel. Absence of evidence keeps, evidence withdraws: `Listed` comes only after
//! every page of a list was read, `Deleted` only when the API server says so, and every failure (403, 404 on the list, a
//! connection that breaks or stalls) is told as `Failed` and changes nothing else. `Watching` says that it is well again. Objects
//! are taken as untyped values and decoded one by one, so that a bad one cannot hide the others.
//!
//! kube's own watcher does not say when a watch is established again after an error, which is what readiness wants to know.

use std::time::Duration;

use futures_util::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::backoff::Backoff;
use crate::failure::Failure;
use crate::freshness::Epoch;

/// Objects of one page; the same as client-go's pager.
const PAGE: u32 = 500;
/// Longest wait for one page, or for the begin of a watch.
const REQUEST: Duration = Duration::from_secs(30);
/// The API server ends a watch after this many seconds and we begin the next one: a connection that died silently is noticed
/// after [`STALLED`], at the price of one small request a minute and kind.
const WATCH_SECONDS: u32 = 60;
/// A watch that lasts this long has not been ended by the API server as it was asked to.
const STALLED: Duration = Duration::from_secs(65);
/// A watch that ends sooner is a failure, so that a server which ends them all at once is not asked without pause.
const SHORTEST: Duration = Duration::from_secs(1);
/// Waits between tries: soon after a hiccup; at most this long after RBAC was given back.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];
/// After this many failed attempts to go on with a watch, everything is listed again.
const WATCH_TRIES: u32 = 3;

/// What to list and watch.
#[derive(Clone)]
pub(crate) struct Listing {
    pub(crate) objects: Objects,
    pub(crate) field_selector: Option<String>,
    pub(crate) label_selector: Option<String>,
}

impl Listing {
    pub(crate) fn all(objects: Objects) -> Self {
        Self {
            objects,
            field_selector: None,
            label_selector: None,
        }
    }
}

/// How much of each object to read.
#[derive(Clone)]
pub(crate) enum Objects {
    Whole(Api<DynamicObject>),
    /// Names and versions of Secrets, never their content.
    SecretMetadata(Api<Secret>),
}

/// What a watcher tells.
#[derive(Debug)]
pub(crate) enum Event<T> {
    /// All that there is.
    Listed(Vec<T>),
    Applied(T),
    Deleted(T),
    /// The watch goes on from here.
    Watching,
    /// Nothing is known of what changes from now on.
    Failed(Failure),
    /// The first list since this epoch began was answered; with what, was told just before.
    Answered(Epoch),
}

/// Why one watch ended.
enum Ended {
    /// As the API server was asked to; go on from the same version.
    InTime,
    /// Go on from the same version, but not at once.
    Broken(Failure),
    /// The version is of no use any more.
    Relist(Option<Failure>),
    /// Nobody listens.
    Closed,
}

/// Nobody takes the events any more: the process is ending.
#[derive(Debug)]
pub(crate) struct Closed;

/// Runs until nobody takes the events any more. `source` goes with every event. With each new epoch whatever is under way, be it a
/// wait, a request without an answer or a watch without events, is dropped for a new list.
pub(crate) async fn run<S: Clone, T>(
    source: S,
    listing: Listing,
    decode: impl Fn(DynamicObject) -> T,
    events: mpsc::Sender<(S, Event<T>)>,
    mut epochs: watch::Receiver<Epoch>,
) {
    let watcher = Watcher {
        source,
        listing,
        decode,
        events,
    };
    loop {
        let epoch = *epochs.borrow_and_update();
        let begins = async {
            if epochs.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = begins => {}
            Closed = watcher.keep(epoch) => return,
        }
    }
}

struct Watcher<S, T, D> {
    source: S,
    listing: Listing,
    decode: D,
    events: mpsc::Sender<(S, Event<T>)>,
}

impl<S: Clone, T, D: Fn(DynamicObject) -> T> Watcher<S, T, D> {
    async fn tell(&self, event: Event<T>) -> Result<(), Closed> {
        let sent = self.events.send((self.source.clone(), event)).await;
        sent.map_err(|_| Closed)
    }

    /// Lists and watches for one epoch.
    async fn keep(&self, epoch: Epoch) -> Closed {
        let mut backoff = Backoff::new(RETRY[0], RETRY[1]);
        let mut unanswered = Some(epoch);
        loop {
            let over = self.list_and_watch(&mut backoff, &mut unanswered).await;
            if let Err(closed) = over {
                return closed;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Returns when everything has to be listed again.
    async fn list_and_watch(
        &self,
        backoff: &mut Backoff,
        unanswered: &mut Option<Epoch>,
    ) -> Result<(), Closed> {
        let listed = self.list().await;
        let (listed, version) = match listed {
            Ok((objects, version)) => (Event::Listed(objects), Some(version)),
            Err(failure) => (Event::Failed(failure), None),
        };
        self.tell(listed).await?;
        if let Some(epoch) = unanswered.take() {
            self.tell(Event::Answered(epoch)).await?;
        }
        let Some(mut version) = version else {
            return Ok(());
        };
        let mut broken = 0;
        loop {
            let began = Instant::now();
            let ended = self.watch(&mut version).await;
            if began.elapsed() >= SHORTEST {
                broken = 0;
                backoff.reset();
            }
            match ended {
                Ended::Closed => return Err(Closed),
                Ended::InTime if began.elapsed() >= SHORTEST => continue,
                Ended::InTime => {}
                Ended::Relist(None) => return Ok(()),
                Ended::Relist(Some(failure)) => return self.tell(Event::Failed(failure)).await,
                Ended::Broken(failure) => self.tell(Event::Failed(failure)).await?,
            }
            broken += 1;
            if broken == WATCH_TRIES {
                return Ok(());
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// All pages, decoded, and the version to watch from.
    async fn list(&self) -> Result<(Vec<T>, String), Failure> {
        let mut params = ListParams {
            field_selector: self.listing.field_selector.clone(),
            label_selector: self.listing.label_selector.clone(),
            ..ListParams::default().limit(PAGE)
        };
        let mut objects = Vec::new();
        loop {
            let page = timeout(REQUEST, self.listing.objects.page(&params)).await;
            let (items, version, more) = page.map_err(|_| Failure::Timeout(REQUEST))??;
            objects.extend(items.into_iter().map(&self.decode));
            match (more, version) {
                (Some(more), _) => params.continue_token = Some(more),
                (None, Some(version)) => return Ok((objects, version)),
                (None, None) => return Err(Failure::NoVersion),
            }
        }
    }

    /// One watch, from `version` on, which follows what it sees.
    async fn watch(&self, version: &mut String) -> Ended {
        let params = WatchParams {
            field_selector: self.listing.field_selector.clone(),
            label_selector: self.listing.label_selector.clone(),
            ..WatchParams::default().timeout(WATCH_SECONDS)
        };
        let deadline = Instant::now() + STALLED;
        match &self.listing.objects {
            Objects::Whole(api) => match timeout(REQUEST, api.watch(&params, version)).await {
                Ok(Ok(events)) => self.follow(events, deadline, version).await,
                Ok(Err(error)) => ended(error),
                Err(_) => Ended::Broken(Failure::Timeout(REQUEST)),
            },
            Objects::SecretMetadata(api) => {
                match timeout(REQUEST, api.watch_metadata(&params, version)).await {
                    Ok(Ok(events)) => {
                        let events = events.map(|event| event.map(metadata_event));
                        self.follow(events, deadline, version).await
                    }
                    Ok(Err(error)) => ended(error),
                    Err(_) => Ended::Broken(Failure::Timeout(REQUEST)),
                }
            }
        }
    }

    async fn follow(
        &self,
        events: impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>>,
        deadline: Instant,
        version: &mut String,
    ) -> Ended {
        if self.tell(Event::Watching).await.is_err() {
            return Ended::Closed;
        }
        pin_mut!(events);
        loop {
            let event = match timeout_at(deadline, events.next()).await {
                Err(_) => return Ended::Broken(Failure::Stalled(STALLED)),
                Ok(None) => return Ended::InTime,
                Ok(Some(Err(error))) => return ended(error),
                Ok(Some(Ok(WatchEvent::Error(status)))) => return ended(kube::Error::Api(status)),
                Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                    follow_version(version, &object);
                    Event::Applied((self.decode)(object))
                }
                Ok(Some(Ok(WatchEvent::Deleted(object)))) => {
                    follow_version(version, &object);
                    Event::Deleted((self.decode)(object))
                }
            };
            if self.tell(event).await.is_err() {
                return Ended::Closed;
            }
        }
    }
}

fn follow_version(version: &mut String, object: &DynamicObject) {
    if let Some(newer) = &object.metadata.resource_version {
        version.clone_from(newer);
    }
}

/// What the API server said leads to a new list, what broke on the way does not.
fn ended(error: kube::Error) -> Ended {
    match error {
        // Only too old a version, which every long pause leads to.
        kube::Error::Api(status) if status.code == 410 => Ended::Relist(None),
        // An API server that has too much to do is not asked for everything again.
        kube::Error::Api(status) if status.code == 429 || status.code >= 500 => {
            Ended::Broken(kube::Error::Api(status).into())
        }
        error @ kube::Error::Api(_) => Ended::Relist(Some(error.into())),
        error => Ended::Broken(error.into()),
    }
}

type Page = (Vec<DynamicObject>, Option<String>, Option<String>);

impl Objects {
    async fn page(&self, params: &ListParams) -> Result<Page, Failure> {
        let (items, metadata) = match self {
            Self::Whole(api) => {
                let list = api.list(params).await?;
                (list.items, list.metadata)
            }
            Self::SecretMetadata(api) => {
                let list = api.list_metadata(params).await?;
                let items = list.items.into_iter().map(metadata_only).collect();
                (items, list.metadata)
            }
        };
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok((
            items,
            given(metadata.resource_version),
            given(metadata.continue_),
        ))
    }
}

fn metadata_only(object: PartialObjectMeta<Secret>) -> DynamicObject {
    DynamicObject {
        types: None,
        metadata: object.metadata,
        data: serde_json::Value::Null,
    }
}

fn metadata_event(event: WatchEvent<PartialObjectMeta<Secret>>) -> WatchEvent<DynamicObject> {
    match event {
        WatchEvent::Added(object) => WatchEvent::Added(metadata_only(object)),
        WatchEvent::Modified(object) => WatchEvent::Modified(metadata_only(object)),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(metadata_only(object)),
        WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
        WatchEvent::Error(status) => WatchEvent::Error(status),
    }
}
