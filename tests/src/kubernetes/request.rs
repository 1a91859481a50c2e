//! One request to the API server, as JSON, for what would be too slow or too roundabout by `kubectl`: a connection, a
//! request, an answer.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::credentials::{Access, Identity};
use crate::wait::within;

/// A client of one API server, as one identity.
#[derive(Clone)]
pub struct Api {
    access: Access,
    tls: Arc<ClientConfig>,
}

/// How a PATCH is meant.
#[derive(Clone, Copy, Debug)]
pub enum Patch<'a> {
    /// Server-side apply by this field manager, which takes the fields over from others.
    Apply(&'a str),
    /// RFC 7386.
    Merge,
}

impl Api {
    pub fn new(access: Access) -> Self {
        let tls = access.tls();
        Self { access, tls }
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, Some(("application/json", body)))
            .await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, None).await
    }

    /// `path` without a query; JSON is YAML, so server-side apply takes it as it is.
    pub async fn patch(&self, path: &str, kind: Patch<'_>, body: &Value) -> (StatusCode, Value) {
        let (path, content_type) = match kind {
            Patch::Apply(manager) => (
                format!("{path}?fieldManager={manager}&force=true"),
                "application/apply-patch+yaml",
            ),
            Patch::Merge => (path.to_owned(), "application/merge-patch+json"),
        };
        self.send(Method::PATCH, &path, Some((content_type, body)))
            .await
    }

    /// [`Self::post`] that must be taken.
    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> (StatusCode, Value) {
        let what = format!("{method} {path}");
        match within(&what, self.try_send(method, path, body)).await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error:#}"),
        }
    }

    /// An error when there is no answer at all. A body that is not JSON comes back as a string.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let address = self.access.server;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;

        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::ACCEPT, "application/json");
        if let Identity::Token(token) = &self.access.identity {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes))?;
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        // The connection is driven beside the exchange and ends with it: `sender` is dropped inside `answer`.
        let (answer, driven) = tokio::join!(answer, connection);
        let (status, body) = answer?;
        driven.context("the connection ended badly")?;
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((status, value))
    }
}
