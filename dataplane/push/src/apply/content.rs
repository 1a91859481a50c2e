//! One resource as it was sent -> what may stand in the table for it.

use std::sync::Arc;

use route_table::{
    Backend, BackendKey, CertificateKey, CertificateResource, External, ExternalKey, ResourceKey,
    Resources, Route, RouteKey,
};

use crate::closed::{self, Scope};
use crate::decode::{self, FieldProblem, Place, Undecodable};
use crate::key::parse_key;
use crate::{HOLD_BODY, clean, wire};

/// Most bytes of an unknown feature's name that a reason repeats.
const MAX_SHOWN_BYTES: usize = 64;

/// A resource under its key.
#[derive(Debug)]
pub(super) enum Resource {
    Route(RouteKey, Arc<Route>),
    Backend(BackendKey, Arc<Backend>),
    External(ExternalKey, Arc<External>),
    Certificate(CertificateKey, Arc<CertificateResource>),
}

/// What a resource comes to.
#[derive(Debug)]
pub(super) enum Content {
    Accepted(Resource),
    /// It does not decode.
    Unreadable {
        reason: String,
        closed: Option<Resource>,
    },
    /// It requires a feature that is lacking here.
    Unsupported {
        reason: String,
        scope: Scope,
        /// As far as it decodes.
        closed: Option<Resource>,
    },
}

/// Reads a resource for a dataplane that enforces `features`.
pub(super) fn read(resource: &wire::Resource, features: &[&str]) -> Content {
    let lacking = resource
        .requires
        .iter()
        .filter(|feature| !features.contains(&feature.as_str()))
        .collect::<Vec<_>>();
    if let Some(first) = lacking.first() {
        let requests_only = lacking
            .iter()
            .all(|feature| Scope::of_feature(feature) == Scope::Requests);
        let scope = if requests_only {
            Scope::Requests
        } else {
            Scope::Handshakes
        };
        return Content::Unsupported {
            reason: format!(
                "requires {}, which this dataplane's version does not have; upgrade the dataplane",
                clean(first, MAX_SHOWN_BYTES)
            ),
            scope,
            closed: close(resource, scope),
        };
    }
    if resource.body == HOLD_BODY {
        let reason = "is too large to be pushed".to_owned();
        let closed = None;
        return Content::Unreadable { reason, closed };
    }
    match decode(resource) {
        Ok(decoded) => Content::Accepted(decoded),
        Err(error) => Content::Unreadable {
            reason: error.to_string(),
            closed: close(resource, Scope::Requests),
        },
    }
}

fn decode(resource: &wire::Resource) -> Result<Resource, Undecodable> {
    let body = &resource.body;
    match parse_key(&resource.key) {
        Some(ResourceKey::Route(key)) => {
            let route = decode::route(&decode::message(body)?)?;
            Ok(Resource::Route(key, Arc::new(route)))
        }
        Some(ResourceKey::Backend(key)) => {
            let backend = decode::backend(&decode::message(body)?)?;
            Ok(Resource::Backend(key, Arc::new(backend)))
        }
        Some(ResourceKey::External(key)) => {
            let external = decode::external(&decode::message(body)?)?;
            Ok(Resource::External(key, Arc::new(external)))
        }
        Some(ResourceKey::Certificate(key)) => {
            let certificate = decode::certificate(decode::message(body)?)?;
            Ok(Resource::Certificate(key, Arc::new(certificate)))
        }
        None => Err(Place::root("key").error(FieldProblem::Key)),
    }
}

/// The closed form: of a route what can be read of it, of anything else nothing.
fn close(resource: &wire::Resource, scope: Scope) -> Option<Resource> {
    match parse_key(&resource.key)? {
        ResourceKey::Route(key) => {
            let message = decode::message(&resource.body).ok()?;
            Some(Resource::Route(
                key,
                Arc::new(closed::route(&message, scope)),
            ))
        }
        ResourceKey::Backend(_) | ResourceKey::External(_) | ResourceKey::Certificate(_) => None,
    }
}

impl Resource {
    pub(super) fn insert(self, resources: &mut Resources) {
        match self {
            Self::Route(key, route) => {
                resources.routes.insert(key, route);
            }
            Self::Backend(key, backend) => {
                resources.backends.insert(key, backend);
            }
            Self::External(key, external) => {
                resources.externals.insert(key, external);
            }
            Self::Certificate(key, certificate) => {
                resources.certificates.insert(key, certificate);
            }
        }
    }
}

/// Closes what stands under a key as it was sent: a route stays in its closed form, anything else goes.
pub(super) fn close_standing(resources: &mut Resources, key: &str, scope: Scope) {
    match parse_key(key) {
        Some(ResourceKey::Route(key)) => {
            if let Some(route) = resources.routes.get_mut(&key) {
                *route = Arc::new(closed::of_accepted(route, scope));
            }
        }
        Some(ResourceKey::Backend(_) | ResourceKey::External(_) | ResourceKey::Certificate(_))
        | None => {
            remove(resources, key);
        }
    }
}

/// Takes out whatever stands under a key as it was sent.
pub(super) fn remove(resources: &mut Resources, key: &str) {
    match parse_key(key) {
        Some(ResourceKey::Route(key)) => {
            resources.routes.remove(&key);
        }
        Some(ResourceKey::Backend(key)) => {
            resources.backends.remove(&key);
        }
        Some(ResourceKey::External(key)) => {
            resources.externals.remove(&key);
        }
        Some(ResourceKey::Certificate(key)) => {
            resources.certificates.remove(&key);
        }
        // Of a kind that is not known here nothing ever got in.
        None => {}
    }
}
