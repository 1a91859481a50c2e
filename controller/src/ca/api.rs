//! The Secret and the `ConfigMap` of the CA in the Kubernetes API.
//!
//! Bodies hold keys: requests are [`quietly`] made, and what is sent is wiped.

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use super::material::{Damaged, Material};
use super::{BUNDLE_KEY, CaError, CaNames};
use crate::failure::Failure;
use crate::quietly::{absent_or, quietly};

/// Room for the Secret as it is sent (four short PEM texts in base64, twice the usual), so that the buffer never grows and leaves
/// a part of a key behind.
const SECRET_BYTES: usize = 64 << 10;

/// The two objects.
pub(super) struct Api {
    client: Client,
    names: CaNames,
}

/// The Secret as it was found.
pub(super) enum Stored {
    Absent,
    /// With its metadata, to write it back.
    Present(Box<ObjectMeta>, Result<Material, Damaged>),
}

impl Api {
    pub(super) fn new(client: Client, names: CaNames) -> Self {
        Self { client, names }
    }

    pub(super) async fn bundle(&self) -> Result<Option<ConfigMap>, CaError> {
        let request = http::Request::get(self.path::<ConfigMap>(Some(&self.names.bundle)));
        let found = quietly(&self.client, request, Bytes::new()).await;
        absent_or(found).map_err(|source| CaError::Api {
            doing: "reading the ConfigMap of the CA",
            source,
        })
    }

    pub(super) async fn material(&self) -> Result<Stored, CaError> {
        let request = http::Request::get(self.path::<Secret>(Some(&self.names.secret)));
        let found = quietly::<Secret>(&self.client, request, Bytes::new()).await;
        let found = absent_or(found).map_err(|source| CaError::Api {
            doing: "reading the Secret of the CA",
            source,
        })?;
        let Some(mut secret) = found else {
            return Ok(Stored::Absent);
        };
        let mut values = secret.data.take().unwrap_or_default();
        let read = Material::read(|name| values.get(name).map(|value| value.0.as_slice()));
        for value in values.values_mut() {
            value.0.zeroize();
        }
        Ok(Stored::Present(Box::new(secret.metadata), read))
    }

    /// Creates the Secret, or replaces the one that was found if it is still that one.
    pub(super) async fn write_material(
        &self,
        found: Option<Box<ObjectMeta>>,
        material: &Material,
    ) -> Result<(), CaError> {
        let values = material.values().into_iter();
        let values =
            values.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())));
        let name = &self.names.secret;
        let mut secret = Secret {
            data: Some(values.collect()),
            metadata: self.metadata(found.as_deref(), name),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let body = encode(&secret);
        for value in secret
            .data
            .iter_mut()
            .flat_map(|values| values.values_mut())
        {
            value.0.zeroize();
        }
        self.write::<Secret>(found.map(|_| &**name), body, "the Secret of the CA")
            .await
    }

    /// Creates the `ConfigMap`, or replaces the one that was found if it is still that one; other keys in it stay.
    pub(super) async fn write_bundle(
        &self,
        found: Option<ConfigMap>,
        pem: &str,
    ) -> Result<(), CaError> {
        let name = &self.names.bundle;
        let exists = found.as_ref().map(|_| &**name);
        let mut bundle = found.unwrap_or_default();
        bundle.metadata = self.metadata(Some(&bundle.metadata), name);
        bundle
            .data
            .get_or_insert_default()
            .insert(BUNDLE_KEY.to_owned(), pem.to_owned());
        self.write::<ConfigMap>(exists, encode(&bundle), "the ConfigMap of the CA")
            .await
    }

    async fn write<K>(
        &self,
        exists: Option<&str>,
        body: Result<Bytes, Failure>,
        what: &'static str,
    ) -> Result<(), CaError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let request = match exists {
            Some(name) => http::Request::put(self.path::<K>(Some(name))),
            None => http::Request::post(self.path::<K>(None)),
        };
        let written = match body {
            Ok(body) => quietly::<serde::de::IgnoredAny>(&self.client, request, body).await,
            Err(failure) => Err(failure),
        };
        match written {
            Ok(_) => Ok(()),
            // Created, written or deleted since it was read.
            Err(failure) if failure.code() == Some(409) => Err(CaError::Conflict(what)),
            Err(failure) if exists.is_some() && failure.code() == Some(404) => {
                Err(CaError::Conflict(what))
            }
            Err(source) => Err(CaError::Api {
                doing: "writing the CA",
                source,
            }),
        }
    }

    /// What was found, without what the API server keeps for itself.
    fn metadata(&self, found: Option<&ObjectMeta>, name: &str) -> ObjectMeta {
        let mut metadata = found.cloned().unwrap_or_default();
        metadata.managed_fields = None;
        metadata.name = Some(name.to_owned());
        metadata.namespace = Some(self.names.namespace.clone());
        metadata
    }

    fn path<K: Resource<DynamicType = ()>>(&self, name: Option<&str>) -> String {
        let path = K::url_path(&(), Some(&self.names.namespace));
        match name {
            Some(name) => format!("{path}/{name}"),
            None => path,
        }
    }
}

/// As JSON, wiped when it was sent.
fn encode(object: &impl Serialize) -> Result<Bytes, Failure> {
    let mut json = Zeroizing::new(Vec::with_capacity(SECRET_BYTES));
    serde_json::to_writer(&mut *json, object).map_err(|_| Failure::Unreadable)?;
    Ok(Bytes::from_owner(json))
}
