//! The certificates of the push: the controller's own CA, and the certificate that every replica shows to dataplanes.
//!
//! Everything private is in one Secret that only the controllers read and nobody mounts; the public bundle is a `ConfigMap` that the
//! dataplanes mount. Each replica looks at both every minute: what is missing it makes, what is due it renews, and of several that
//! do so at once one wins, because every write carries the resourceVersion that it is based on. The others then read what it made.
//! The `ConfigMap` is read before the Secret, so that an older bundle can never replace a newer one.
//!
//! To change the CA by hand, delete the Secret: a replica that runs makes a new CA, and the bundle holds the old one too. A replica
//! that has just started knows no CA; where a bundle shows that there was one, it leaves that to those that run for a while, because
//! a CA that it makes by itself signs for nobody who has the old bundle.
//!
//! What to keep and what to renew is a pure function of the material and the time (`material`).

mod api;
mod material;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::Failure;
use api::{Api, Stored};
pub(crate) use material::Material;
use material::{Damaged, MaterialError};

/// Key of the bundle in the `ConfigMap`; dataplanes mount it under this name.
pub const BUNDLE_KEY: &str = "ca.crt";

/// How often the Secret and the `ConfigMap` are looked at: two small reads a minute and replica, so that what somebody deleted is
/// back before the next dataplane needs it.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How long a replica that knows no CA waits for the Secret where there is a bundle already: one that knows it looks within
/// [`LOOK_EVERY`], or tries again within 15 s, and writes.
const SUCCESSION: Duration = Duration::from_secs(90);
/// Waits after a failure. A conflict is one, and three replicas that start at once have them: the first wait is short.
const RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];

/// Where the CA is kept.
#[derive(Debug, Clone)]
pub struct CaNames {
    /// Of both; the namespace of the installation.
    pub namespace: String,
    /// The Secret with the private keys.
    pub secret: String,
    /// The `ConfigMap` with the public bundle.
    pub bundle: String,
}

/// What the push listener shows; nothing until the CA was read or made.
pub type ServerTls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Keeps the CA.
pub struct Authority {
    api: Api,
    /// What was read or written last. The CA that follows a Secret that was deleted or damaged stands beside it.
    held: Option<Material>,
    /// Since when there is a bundle and no Secret to it, while nothing is held.
    orphaned: Option<Instant>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

/// Why the CA could not be looked after.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    #[error("another replica wrote {0} first")]
    Conflict(&'static str),
    #[error("{doing} failed")]
    Api {
        doing: &'static str,
        source: Failure,
    },
    #[error(
        "there is a bundle but no usable Secret of the CA; for {SUCCESSION:?} that is left to a replica that still has it"
    )]
    Orphaned,
    #[error(transparent)]
    Material(#[from] MaterialError),
}

impl Authority {
    pub fn new(client: Client, names: CaNames) -> (Self, ServerTls) {
        let (tls, receiver) = watch::channel(None);
        let authority = Self {
            api: Api::new(client, names),
            held: None,
            orphaned: None,
            tls,
        };
        (authority, receiver)
    }

    /// Looks after the CA until `stop`. It may be cut short anywhere: whoever looks next finds what is written and goes on.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&mut self) {
        let [least, most] = RETRY;
        let mut backoff = Backoff::new(least, most);
        let mut failing = false;
        loop {
            let looked = self.look(Timestamp::now()).await;
            let pause = match &looked {
                Ok(()) => {
                    backoff.reset();
                    LOOK_EVERY
                }
                Err(_) => backoff.next(),
            };
            match looked {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the CA of the push can be looked after again");
                }
                Err(CaError::Conflict(what)) => {
                    tracing::debug!(what, "another replica looks after the CA of the push too");
                }
                Err(error) if !failing => {
                    failing = true;
                    let error = anyhow::Error::new(error);
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the CA of the push cannot be looked after");
                }
                Ok(()) | Err(_) => {}
            }
            sleep(pause).await;
        }
    }

    /// Reads both objects, and writes what is missing or due.
    pub(crate) async fn look(&mut self, now: Timestamp) -> Result<(), CaError> {
        let bundle = self.api.bundle().await?;
        let stored = self.api.material().await?;
        let material = self.current(stored, bundle.as_ref(), now).await?;
        self.show(&material)?;
        let pem = material.bundle_pem();
        self.held = Some(material);
        self.orphaned = None;
        self.publish(bundle, &pem).await
    }

    /// The material that holds from now on, written if it is not what was stored.
    async fn current(
        &mut self,
        stored: Stored,
        bundle: Option<&ConfigMap>,
        now: Timestamp,
    ) -> Result<Material, CaError> {
        let (found, material) = match stored {
            Stored::Present(found, Ok(material)) => match Material::renew(Some(&material), now)? {
                Some(renewed) => (Some(found), renewed),
                None => return Ok(material),
            },
            Stored::Present(found, Err(Damaged(what))) => {
                let material = self.anew(bundle, now)?;
                tracing::error!(what, "the Secret of the CA is damaged and is written anew");
                (Some(found), material)
            }
            Stored::Absent => (None, self.anew(bundle, now)?),
        };
        self.api.write_material(found, &material).await?;
        tracing::info!(
            authorities = material.authorities(),
            "the CA of the push was written"
        );
        Ok(material)
    }

    /// Somebody took the CA away: that is how a person asks for another one, so it is not put back. Whoever wrote first decides which;
    /// the others look again and take it.
    fn anew(&mut self, bundle: Option<&ConfigMap>, now: Timestamp) -> Result<Material, CaError> {
        if let Some(held) = &self.held {
            return Ok(held.succeed(now)?);
        }
        let known = Material::new(now)?.beside(published(bundle).unwrap_or_default(), now);
        // Nobody trusts a bundle that holds nothing.
        if known.authorities() > 1 {
            let since = self.orphaned.get_or_insert_with(Instant::now);
            if since.elapsed() < SUCCESSION {
                return Err(CaError::Orphaned);
            }
        }
        Ok(known)
    }

    /// Gives the listener another certificate, if it is another one.
    fn show(&self, material: &Material) -> Result<(), CaError> {
        let same = |held: &Material| held.same_server(material);
        if self.tls.borrow().is_some() && self.held.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.tls
            .send_replace(Some(Arc::new(material.server_config()?)));
        Ok(())
    }

    async fn publish(&self, found: Option<ConfigMap>, pem: &str) -> Result<(), CaError> {
        if published(found.as_ref()) == Some(pem) {
            return Ok(());
        }
        self.api.write_bundle(found, pem).await
    }
}

/// The bundle that dataplanes have.
fn published(bundle: Option<&ConfigMap>) -> Option<&str> {
    let text = bundle?.data.as_ref()?.get(BUNDLE_KEY)?;
    Some(text)
}
