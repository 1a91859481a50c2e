//! Which Services, and EndpointSlices of theirs, a compile could read.
//!
//! Most Services of a cluster are nobody's backend, and their slices change with each pod. What routes refer to is not derived here:
//! each compile says it, and a route that begins to refer to something is a change itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{ObjectKey, Objects};

/// The label by which a slice belongs to a Service of its namespace.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The name of the Service that a slice belongs to.
pub(crate) fn service_name(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref();
    labels?.get(SERVICE_LABEL).map(String::as_str)
}

/// The Services whose change matters.
#[derive(Debug, Clone, Default)]
pub(super) enum Relevant {
    /// Nobody has said yet.
    #[default]
    All,
    These(BTreeSet<ObjectKey>),
}

impl Relevant {
    pub(super) fn service(&self, key: &ObjectKey) -> bool {
        match self {
            Self::All => true,
            Self::These(services) => services.contains(key),
        }
    }

    fn slice(&self, key: &ObjectKey, slice: &EndpointSlice) -> bool {
        service_name(slice).is_some_and(|name| {
            self.service(&ObjectKey {
                namespace: key.namespace.clone(),
                name: name.into(),
            })
        })
    }

    /// Whether a slice matters as it is, or as it becomes: its label may change.
    pub(super) fn slices(
        &self,
        key: &ObjectKey,
        held: &Objects<Arc<EndpointSlice>>,
        next: Option<&EndpointSlice>,
    ) -> bool {
        let held = held.get(key).map(|slice| &**slice);
        held.into_iter()
            .chain(next)
            .any(|slice| self.slice(key, slice))
    }
}
