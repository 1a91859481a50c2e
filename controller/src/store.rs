//! What the cluster, or a set of files, holds of the six kinds that are compiled.
//!
//! In: [`Object`]s as they come and go, in any order. Out: whether that changed anything, and a [`Snapshot`], owned and
//! immutable. Nothing is derived here, with two exceptions. What no compile reads (managedFields, resourceVersion, our own
//! conditions) is dropped on entry, so that its change is none, and the change of a Service that no route refers to is told as
//! none too. A Secret is parsed on entry, so that its key bytes live in one place and each certificate is parsed once.

mod grant;
mod relevance;
mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crds::{ExternalBackend, WebSocketRoute, WebSocketRouteStatus};
use k8s_openapi::api::core::v1::{self, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use grant::API_VERSION as GRANT_API_VERSION;
pub use grant::{GrantFrom, GrantSpec, GrantTo, ReferenceGrant};
use relevance::Relevant;
pub(crate) use relevance::service_name;
pub use secret::{Secret, SecretError};

/// The namespace of an object that names none, as for kubectl.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The kinds that are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    WebSocketRoute,
    ExternalBackend,
    Secret,
    Service,
    EndpointSlice,
    ReferenceGrant,
}

/// Names an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// Names an object within its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// An object of one of the kinds; made by `from` the Kubernetes type. Its Debug shows no key bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    WebSocketRoute(Arc<WebSocketRoute>),
    ExternalBackend(Arc<ExternalBackend>),
    Secret(Arc<Secret>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    ReferenceGrant(ObjectKey, Arc<GrantSpec>),
}

/// What it means that the Store was never told of a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlistedSecrets {
    /// Everything that exists is in the Store, so it does not exist. Standalone.
    Absent,
    /// It may exist; nobody asked yet. A cluster, where Secrets are read one by one and `delete` records that one is absent.
    NotYetRead,
}

/// What is known of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretState {
    Present(Arc<Secret>),
    Absent,
    NotYetRead,
}

/// All objects, as they are now.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Snapshot,
    relevant: Relevant,
}

/// All objects, as they were at one moment. A clone shares everything; it costs six reference counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    unlisted: UnlistedSecrets,
    has_externals: bool,
    routes: Objects<Arc<WebSocketRoute>>,
    externals: Objects<Arc<ExternalBackend>>,
    secrets: Objects<SecretState>,
    services: Objects<Arc<Service>>,
    slices: Objects<Arc<EndpointSlice>>,
    grants: Objects<Arc<GrantSpec>>,
}

/// Shared with every snapshot until the Store changes it; then copied once, without the objects themselves.
type Objects<T> = Arc<BTreeMap<ObjectKey, T>>;

impl Store {
    pub fn new(unlisted: UnlistedSecrets) -> Self {
        let objects = Snapshot {
            unlisted,
            has_externals: true,
            routes: Arc::default(),
            externals: Arc::default(),
            secrets: Arc::default(),
            services: Arc::default(),
            slices: Arc::default(),
            grants: Arc::default(),
        };
        Self {
            objects,
            relevant: Relevant::default(),
        }
    }

    /// Routes refer to these Services and no others, so that the changes of others are told as none. A route that comes to refer to
    /// another one is a change by itself; whoever compiles then says so here. Never told, all matter.
    pub fn refer_to_services(&mut self, services: BTreeSet<ObjectKey>) {
        self.relevant = Relevant::These(services);
    }

    /// Whether the cluster has this kind at all; never told, it has. Returns whether a compile could come out differently.
    pub(crate) fn define(&mut self, kind: Kind, is_defined: bool) -> bool {
        match kind {
            Kind::ExternalBackend => {
                std::mem::replace(&mut self.objects.has_externals, is_defined) != is_defined
            }
            // Without the kind there is no grant, and nothing else to say; the others are always there.
            Kind::WebSocketRoute
            | Kind::Secret
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::ReferenceGrant => false,
        }
    }

    /// Adds or replaces an object. Returns whether a compile could come out differently.
    pub fn apply(&mut self, object: Object) -> bool {
        let key = object.reference().key();
        match object {
            Object::WebSocketRoute(route) => put(&mut self.objects.routes, key, route),
            Object::ExternalBackend(external) => put(&mut self.objects.externals, key, external),
            Object::Secret(secret) => {
                let state = SecretState::Present(secret);
                put(&mut self.objects.secrets, key, state)
            }
            Object::Service(service) => {
                let matters = self.relevant.service(&key);
                put(&mut self.objects.services, key, service) && matters
            }
            Object::EndpointSlice(slice) => {
                let held = &mut self.objects.slices;
                let matters = self.relevant.slices(&key, held, Some(&slice));
                put(held, key, slice) && matters
            }
            Object::ReferenceGrant(_, grant) => put(&mut self.objects.grants, key, grant),
        }
    }

    /// Records that an object does not exist. Returns whether a compile could come out differently.
    pub fn delete(&mut self, reference: &ObjectRef) -> bool {
        let key = reference.key();
        match reference.kind {
            Kind::WebSocketRoute => take(&mut self.objects.routes, &key),
            Kind::ExternalBackend => take(&mut self.objects.externals, &key),
            Kind::Service => take(&mut self.objects.services, &key) && self.relevant.service(&key),
            Kind::EndpointSlice => {
                let held = &mut self.objects.slices;
                let matters = self.relevant.slices(&key, held, None);
                take(held, &key) && matters
            }
            Kind::ReferenceGrant => take(&mut self.objects.grants, &key),
            Kind::Secret => match self.objects.unlisted {
                UnlistedSecrets::Absent => take(&mut self.objects.secrets, &key),
                UnlistedSecrets::NotYetRead => {
                    put(&mut self.objects.secrets, key, SecretState::Absent)
                }
            },
        }
    }

    /// Drops what is known of a Secret that nothing refers to any more, its key with it.
    pub fn forget_secret(&mut self, key: &ObjectKey) {
        take(&mut self.objects.secrets, key);
    }

    pub fn snapshot(&self) -> Snapshot {
        self.objects.clone()
    }
}

impl Snapshot {
    /// All routes of all classes, by namespace and name.
    pub fn routes(&self) -> impl Iterator<Item = (&ObjectKey, &WebSocketRoute)> {
        self.routes.iter().map(|(key, route)| (key, &**route))
    }

    /// Whether the cluster has the kind `ExternalBackend`.
    pub fn has_externals(&self) -> bool {
        self.has_externals
    }

    pub fn external(&self, key: &ObjectKey) -> Option<&ExternalBackend> {
        self.externals.get(key).map(|external| &**external)
    }

    pub fn secret(&self, key: &ObjectKey) -> SecretState {
        match (self.secrets.get(key), self.unlisted) {
            (Some(state), _) => state.clone(),
            (None, UnlistedSecrets::Absent) => SecretState::Absent,
            (None, UnlistedSecrets::NotYetRead) => SecretState::NotYetRead,
        }
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key).map(|service| &**service)
    }

    /// All slices of all Services, by namespace and name.
    pub fn slices(&self) -> impl Iterator<Item = (&ObjectKey, &EndpointSlice)> {
        self.slices.iter().map(|(key, slice)| (key, &**slice))
    }

    /// The grants of one namespace, by name. The others are not looked at: there is a question for every foreign reference.
    pub fn grants<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a GrantSpec> {
        let first = ObjectKey {
            namespace: namespace.into(),
            name: "".into(),
        };
        let grants = self.grants.range(first..);
        let grants = grants.take_while(move |(key, _)| *key.namespace == *namespace);
        grants.map(|(_, grant)| &**grant)
    }
}

fn put<T: Clone + PartialEq>(objects: &mut Objects<T>, key: ObjectKey, object: T) -> bool {
    if objects.get(&key) == Some(&object) {
        return false;
    }
    Arc::make_mut(objects).insert(key, object);
    true
}

fn take<T: Clone>(objects: &mut Objects<T>, key: &ObjectKey) -> bool {
    objects.contains_key(key) && Arc::make_mut(objects).remove(key).is_some()
}

impl Object {
    pub fn reference(&self) -> ObjectRef {
        match self {
            Self::WebSocketRoute(route) => reference(Kind::WebSocketRoute, &route.metadata),
            Self::ExternalBackend(external) => reference(Kind::ExternalBackend, &external.metadata),
            Self::Secret(secret) => ObjectRef {
                kind: Kind::Secret,
                namespace: secret.key.namespace.clone(),
                name: secret.key.name.clone(),
            },
            Self::Service(service) => reference(Kind::Service, &service.metadata),
            Self::EndpointSlice(slice) => reference(Kind::EndpointSlice, &slice.metadata),
            Self::ReferenceGrant(key, _) => ObjectRef {
                kind: Kind::ReferenceGrant,
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            },
        }
    }
}

impl From<WebSocketRoute> for Object {
    /// Keeps the claims of the status and drops its conditions, which we wrote ourselves. Keeps the uid, so that a route that was
    /// deleted and made again is another one, whose status is not that of the first.
    fn from(mut route: WebSocketRoute) -> Self {
        let metadata = identity(&route.metadata);
        route.metadata = ObjectMeta {
            generation: route.metadata.generation,
            uid: route.metadata.uid.take(),
            creation_timestamp: route.metadata.creation_timestamp.take(),
            ..metadata
        };
        let claims = route.status.map(|status| status.claims);
        let claims = claims.unwrap_or_default();
        route.status = (!claims.is_empty()).then(|| WebSocketRouteStatus {
            claims,
            ..WebSocketRouteStatus::default()
        });
        Self::WebSocketRoute(Arc::new(route))
    }
}

impl From<ExternalBackend> for Object {
    fn from(mut external: ExternalBackend) -> Self {
        external.metadata = identity(&external.metadata);
        Self::ExternalBackend(Arc::new(external))
    }
}

impl From<v1::Secret> for Object {
    /// Parses the certificate and wipes the bytes that it came in.
    fn from(secret: v1::Secret) -> Self {
        let key = reference(Kind::Secret, &secret.metadata).key();
        Self::Secret(Arc::new(Secret::parse(key, secret)))
    }
}

impl From<Service> for Object {
    fn from(mut service: Service) -> Self {
        service.metadata = identity(&service.metadata);
        service.status = None;
        Self::Service(Arc::new(service))
    }
}

impl From<EndpointSlice> for Object {
    /// Keeps the labels: one of them names the Service.
    fn from(mut slice: EndpointSlice) -> Self {
        slice.metadata = ObjectMeta {
            labels: slice.metadata.labels.take(),
            ..identity(&slice.metadata)
        };
        Self::EndpointSlice(Arc::new(slice))
    }
}

impl From<ReferenceGrant> for Object {
    fn from(grant: ReferenceGrant) -> Self {
        let key = reference(Kind::ReferenceGrant, &grant.metadata).key();
        Self::ReferenceGrant(key, Arc::new(grant.spec))
    }
}

/// Namespace and name only.
fn identity(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        ..ObjectMeta::default()
    }
}

fn reference(kind: Kind, metadata: &ObjectMeta) -> ObjectRef {
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    ObjectRef {
        kind,
        namespace: namespace.into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
    }
}

impl ObjectRef {
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl Kind {
    /// Whether a cluster may be without the kind: then there are no objects of it, which is all that a compile needs to know. Without
    /// one of the others there is nothing to serve, and its absence is somebody's mistake.
    pub(crate) fn is_optional(self) -> bool {
        match self {
            Self::ExternalBackend | Self::ReferenceGrant => true,
            Self::WebSocketRoute | Self::Secret | Self::Service | Self::EndpointSlice => false,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocketRoute => "WebSocketRoute",
            Self::ExternalBackend => "ExternalBackend",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ReferenceGrant => "ReferenceGrant",
        })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
