//! What is watched: one source for each kind and namespace, our own Services and their slices wherever they lie, and the two lists of
//! the dataplane.

use std::sync::Arc;

use crds::{ExternalBackend, WebSocketRoute};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

use crate::args::ObjectName;
use crate::fleet::Part;
use crate::intake::Source;
use crate::store::{GRANT_API_VERSION, Kind};
use crate::watch::{Listing, Objects};

/// One for each kind and namespace, and the Services and slices of the namespaces of `own`: what no route may reach is to be known
/// before anything is published, whether their namespace is watched for routes or not.
pub(crate) fn sources(namespaces: &[String], own: &[ObjectName]) -> Vec<Source> {
    let scopes = match namespaces {
        [] => vec![None],
        namespaces => {
            let mut scopes = namespaces
                .iter()
                .map(|name| Some(Arc::from(&**name)))
                .collect::<Vec<_>>();
            scopes.sort();
            scopes.dedup();
            scopes
        }
    };
    let kinds = [
        Kind::WebSocketRoute,
        Kind::ExternalBackend,
        Kind::Secret,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ReferenceGrant,
    ];
    let of = |kind| {
        let namespaces = scopes.iter().cloned();
        namespaces.map(move |namespace| Source { kind, namespace })
    };
    let mut sources = kinds.into_iter().flat_map(of).collect::<Vec<_>>();
    if !namespaces.is_empty() {
        for kind in [Kind::Service, Kind::EndpointSlice] {
            sources.extend(own.iter().map(|service| Source {
                kind,
                namespace: Some(service.namespace.as_str().into()),
            }));
        }
        sources.sort();
        sources.dedup();
    }
    sources
}

pub(crate) fn listing(client: &Client, source: &Source) -> Listing {
    let namespace = source.namespace.as_deref();
    let whole = |resource: &ApiResource| Objects::Whole(scoped(client, namespace, resource));
    match source.kind {
        Kind::WebSocketRoute => Listing::all(whole(&ApiResource::erase::<WebSocketRoute>(&()))),
        Kind::ExternalBackend => Listing::all(whole(&ApiResource::erase::<ExternalBackend>(&()))),
        Kind::Service => Listing::all(whole(&ApiResource::erase::<Service>(&()))),
        Kind::EndpointSlice => Listing::all(whole(&ApiResource::erase::<EndpointSlice>(&()))),
        Kind::ReferenceGrant => Listing::all(whole(&grants())),
        Kind::Secret => {
            let secrets = match namespace {
                Some(namespace) => Api::<Secret>::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            Listing {
                // The others are never certificates, and there are many of them.
                field_selector: Some("type=kubernetes.io/tls".to_owned()),
                ..Listing::all(Objects::SecretMetadata(secrets))
            }
        }
    }
}

pub(crate) fn fleet_listing(client: &Client, part: Part, service: &ObjectName) -> Listing {
    let ObjectName { namespace, name } = service;
    let whole = |resource: &ApiResource| Objects::Whole(scoped(client, Some(namespace), resource));
    match part {
        Part::Service => Listing {
            field_selector: Some(format!("metadata.name={name}")),
            ..Listing::all(whole(&ApiResource::erase::<Service>(&())))
        },
        Part::EndpointSlice => Listing {
            label_selector: Some(format!("kubernetes.io/service-name={name}")),
            ..Listing::all(whole(&ApiResource::erase::<EndpointSlice>(&())))
        },
    }
}

/// Gateway API's kind; its definition may be absent.
fn grants() -> ApiResource {
    let (group, version) = GRANT_API_VERSION.split_once('/').unwrap_or_default();
    let kind = GroupVersionKind::gvk(group, version, "ReferenceGrant");
    ApiResource::from_gvk_with_plural(&kind, "referencegrants")
}

fn scoped(client: &Client, namespace: Option<&str>, resource: &ApiResource) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(namespaces: &[&str], expected: &[&str]) {
        let namespaces = namespaces
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        let sources = sources(&namespaces, &[]);
        let routes = sources
            .iter()
            .filter(|source| source.kind == Kind::WebSocketRoute);
        assert_eq!(
            routes.map(ToString::to_string).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(sources.len(), expected.len() * 6);
    }

    #[test]
    fn our_own_services_and_their_slices_are_watched_wherever_they_lie() {
        let own = ["a/dataplane", "own/controller", "own/dataplane"];
        let own = own.map(|name| name.parse().unwrap());
        let watched = |kind, namespaces: &[&str]| {
            let namespaces = namespaces.iter().map(ToString::to_string);
            let sources = sources(&namespaces.collect::<Vec<_>>(), &own);
            let of_kind = sources.iter().filter(|source| source.kind == kind);
            of_kind.map(ToString::to_string).collect::<Vec<_>>()
        };
        for kind in [Kind::Service, Kind::EndpointSlice] {
            assert_eq!(watched(kind, &[]), [kind.to_string()]);
            let expected = ["a", "b", "own"];
            let expected = expected.map(|name| format!("{kind} in namespace {name}"));
            assert_eq!(watched(kind, &["a", "b"]), expected);
        }
    }

    #[test]
    fn each_kind_is_watched_everywhere_or_in_each_namespace_once() {
        check(&[], &["WebSocketRoute"]);
        check(
            &["b", "a", "b"],
            &[
                "WebSocketRoute in namespace a",
                "WebSocketRoute in namespace b",
            ],
        );
    }
}
