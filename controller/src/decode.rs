//! An untyped object of the API server -> one of ours, or why it is none.
//!
//! One bad object is reported and withdrawn; it never disturbs the others. Of Secrets only names and versions pass here.

use std::sync::Arc;

use crds::{ExternalBackend, WebSocketRoute, WebSocketRouteStatus};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;

use crate::failure::shown;
use crate::secrets::SecretVersion;
use crate::store::{DEFAULT_NAMESPACE, Kind, Object, ObjectRef, ReferenceGrant};

/// One object as it was watched.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) reference: ObjectRef,
    pub(crate) uid: Arc<str>,
    pub(crate) content: Result<Content, String>,
}

/// What an object holds for us.
#[derive(Debug)]
pub(crate) enum Content {
    Object(Object),
    /// With its status as it stands in the API.
    Route(Object, Observed),
    Secret(SecretVersion),
}

/// The status of a route as it stands in the API.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    pub(crate) uid: Arc<str>,
    /// `metadata.resourceVersion`, whose order is part of the API since Kubernetes 1.35 and was the same before.
    pub(crate) version: u64,
    pub(crate) status: WebSocketRouteStatus,
}

/// Decodes an object that was listed or watched as `kind`.
pub(crate) fn decode(kind: Kind, object: DynamicObject) -> Item {
    let metadata = &object.metadata;
    let reference = ObjectRef {
        kind,
        namespace: metadata
            .namespace
            .as_deref()
            .unwrap_or(DEFAULT_NAMESPACE)
            .into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
    };
    let uid = metadata.uid.as_deref().unwrap_or_default().into();
    let content = match kind {
        Kind::WebSocketRoute => typed(object).map(route),
        Kind::ExternalBackend => {
            typed::<ExternalBackend>(object).map(|external| Content::Object(external.into()))
        }
        Kind::Service => typed::<Service>(object).map(|service| Content::Object(service.into())),
        Kind::EndpointSlice => {
            typed::<EndpointSlice>(object).map(|slice| Content::Object(slice.into()))
        }
        Kind::ReferenceGrant => {
            typed::<ReferenceGrant>(object).map(|grant| Content::Object(grant.into()))
        }
        Kind::Secret => Ok(Content::Secret(SecretVersion {
            uid: Arc::clone(&uid),
            version: object
                .metadata
                .resource_version
                .as_deref()
                .unwrap_or_default()
                .into(),
        })),
    };
    Item {
        reference,
        uid,
        content,
    }
}

fn route(route: WebSocketRoute) -> Content {
    let observed = observed(&route);
    Content::Route(route.into(), observed)
}

pub(crate) fn observed(route: &WebSocketRoute) -> Observed {
    let ObjectMeta {
        uid,
        resource_version,
        ..
    } = &route.metadata;
    let version = resource_version
        .as_deref()
        .and_then(|version| version.parse().ok());
    Observed {
        uid: uid.as_deref().unwrap_or_default().into(),
        version: version.unwrap_or_default(),
        status: route.status.clone().unwrap_or_default(),
    }
}

/// The object as the type it should be; the error names the field.
pub(crate) fn typed<T: DeserializeOwned>(object: DynamicObject) -> Result<T, String> {
    let DynamicObject {
        types: _,
        mut metadata,
        mut data,
    } = object;
    metadata.managed_fields = None;
    let metadata = serde_json::to_value(metadata).map_err(|error| shown(&error.to_string()))?;
    let Some(fields) = data.as_object_mut() else {
        return Err("has no fields".to_owned());
    };
    fields.insert("metadata".to_owned(), metadata);
    serde_path_to_error::deserialize(data).map_err(|error| shown(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(kind: Kind, object: Value) -> Item {
        decode(kind, serde_json::from_value(object).unwrap())
    }

    fn route(port: &Value) -> Value {
        json!({
            "apiVersion": "ws-ingress.dev/v1alpha1",
            "kind": "WebSocketRoute",
            "metadata": { "name": "chat", "namespace": "team", "uid": "u", "resourceVersion": "12" },
            "spec": { "hostnames": ["a.example.com"], "rules": [{ "backendRefs": [{ "name": "chat", "port": port }] }] },
            "status": { "conditions": [{
                "type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
            }] },
        })
    }

    #[test]
    fn a_route_comes_with_its_status() {
        let item = read(Kind::WebSocketRoute, route(&json!(80)));
        assert_eq!(item.reference.to_string(), "WebSocketRoute team/chat");
        let Ok(Content::Route(Object::WebSocketRoute(route), observed)) = item.content else {
            panic!("not a route");
        };
        assert_eq!(route.spec.rules.len(), 1);
        assert_eq!(&*observed.uid, "u");
        assert_eq!(observed.version, 12);
        assert_eq!(observed.status.conditions[0].type_, "Other");
    }

    #[test]
    fn an_error_names_the_field() {
        let item = read(Kind::WebSocketRoute, route(&json!("80")));
        assert_eq!(item.reference.to_string(), "WebSocketRoute team/chat");
        let error = item.content.unwrap_err();
        assert!(
            error.starts_with("spec.rules[0].backendRefs[0].port: "),
            "{error}"
        );
    }

    #[test]
    fn empty_lists_of_go_are_read() {
        let slice = json!({
            "metadata": { "name": "chat-1", "namespace": "team" },
            "addressType": "IPv4", "endpoints": null, "ports": null,
        });
        assert!(read(Kind::EndpointSlice, slice).content.is_ok());
    }

    #[test]
    fn of_a_secret_only_the_version_passes() {
        let secret = json!({ "metadata": { "name": "tls", "namespace": "team", "uid": "u", "resourceVersion": "12" } });
        let Ok(Content::Secret(version)) = read(Kind::Secret, secret).content else {
            panic!("not a Secret");
        };
        assert_eq!((&*version.uid, &*version.version), ("u", "12"));
    }
}
