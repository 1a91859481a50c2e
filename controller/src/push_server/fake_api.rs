//! An API server for tests: objects with resourceVersions, and `TokenReview`s with scripted verdicts.
//!
//! As much of the real one as the CA, the Lease and the tokens rely on: a create of what is there and a write based on another
//! version are conflicts. Each request gives way once before it is served, so that requests made at once do interleave.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use jiff::{Timestamp, ToSpan};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// The namespace and `ServiceAccount` of dataplanes.
pub(crate) const NAMESPACE: &str = "ws-ingress";
pub(crate) const ACCOUNT: &str = "ws-ingress-dataplane";

#[derive(Default)]
pub(crate) struct FakeApi {
    objects: Mutex<BTreeMap<String, Value>>,
    versions: AtomicUsize,
    /// Statuses of reviews by token; every other token is denied.
    verdicts: Mutex<HashMap<String, Value>>,
    pub(crate) reviews: AtomicUsize,
    pub(crate) conflicts: AtomicUsize,
    pub(crate) failing: AtomicBool,
}

impl FakeApi {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, NAMESPACE)
    }

    /// The object at a path such as `/api/v1/namespaces/ws-ingress/secrets/ca`.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path).unwrap();
    }

    /// Changes an object behind everybody's back.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(path).unwrap();
        edit(object);
        object["metadata"]["resourceVersion"] = self.next_version();
    }

    pub(crate) fn reviews(&self) -> usize {
        self.reviews.load(Ordering::Relaxed)
    }

    /// Lets a token be accepted as the pod's.
    pub(crate) fn accept(&self, token: &str, pod_uid: &str) {
        let extra = json!({
            "authentication.kubernetes.io/pod-uid": [pod_uid],
            "authentication.kubernetes.io/pod-name": [format!("name-of-{pod_uid}")],
        });
        let username = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
        let status = json!({
            "authenticated": true,
            "audiences": [push::TOKEN_AUDIENCE],
            "user": { "username": username, "uid": "u", "groups": [], "extra": extra },
        });
        self.answer(token, status);
    }

    /// Lets a review be answered with `status`.
    pub(crate) fn answer(&self, token: &str, status: Value) {
        self.verdicts
            .lock()
            .unwrap()
            .insert(token.to_owned(), status);
    }

    fn next_version(&self) -> Value {
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        version.to_string().into()
    }

    async fn serve(&self, request: http::Request<Body>) -> Response<Full<Bytes>> {
        tokio::task::yield_now().await;
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let object = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let (status, answer) = if self.failing.load(Ordering::Relaxed) {
            refusal(StatusCode::INTERNAL_SERVER_ERROR)
        } else if head.uri.path().ends_with("/tokenreviews") {
            self.review(object)
        } else {
            self.store(&head.method, head.uri.path(), object)
        };
        if status == StatusCode::CONFLICT {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        let mut response = Response::new(Full::from(answer.to_string()));
        *response.status_mut() = status;
        response
    }

    fn review(&self, mut review: Value) -> (StatusCode, Value) {
        self.reviews.fetch_add(1, Ordering::Relaxed);
        assert_eq!(review["spec"]["audiences"], json!([push::TOKEN_AUDIENCE]));
        let token = review["spec"]["token"].as_str().unwrap();
        let verdict = self.verdicts.lock().unwrap().get(token).cloned();
        review["status"] = verdict.unwrap_or_else(|| json!({ "error": "invalid bearer token" }));
        (StatusCode::CREATED, review)
    }

    fn store(&self, method: &Method, path: &str, mut object: Value) -> (StatusCode, Value) {
        let mut objects = self.objects.lock().unwrap();
        if method == Method::GET {
            return match objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => refusal(StatusCode::NOT_FOUND),
            };
        }
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = if method == Method::POST {
            format!("{path}/{name}")
        } else {
            path.to_owned()
        };
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        match (objects.get(&path), method == Method::POST) {
            (Some(_), true) => return refusal(StatusCode::CONFLICT),
            (None, false) => return refusal(StatusCode::NOT_FOUND),
            (Some(stored), false) if version(stored) != version(&object) => {
                return refusal(StatusCode::CONFLICT);
            }
            (Some(_), false) | (None, true) => {}
        }
        object["metadata"]["resourceVersion"] = self.next_version();
        object["metadata"]["uid"] = format!("uid-of-{path}").into();
        objects.insert(path, object.clone());
        (StatusCode::OK, object)
    }
}

fn refusal(code: StatusCode) -> (StatusCode, Value) {
    let answer = json!({
        "kind": "Status",
        "status": "Failure",
        "code": code.as_u16(),
        // As Kubernetes writes them: NotFound, Conflict, InternalServerError.
        "reason": code.canonical_reason().unwrap().replace(' ', ""),
        "message": "scripted",
    });
    (code, answer)
}

/// What a dataplane's token says, for [`token`].
pub(crate) fn claims(pod_uid: &str) -> Value {
    json!({
        "aud": [push::TOKEN_AUDIENCE],
        "sub": format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"),
        "exp": (Timestamp::now() + 1.hour()).as_second(),
        "kubernetes.io": { "pod": { "name": "p", "uid": pod_uid } },
    })
}

/// A token in the form of a JWT; the signature is nobody's.
pub(crate) fn token(claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let header = json!({ "alg": "ES256" });
    format!("{}.{}.c2lnbmF0dXJl", part(&header), part(claims))
}
