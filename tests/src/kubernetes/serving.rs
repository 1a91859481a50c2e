//! A site with a controller, a dataplane and clients that talk all along: what a test takes something away from.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::controller::Controller;
use super::dataplane::Dataplane;
use super::site::{RECOVERY, Site, condition, counts};
use super::traffic::Traffic;
use crate::wait;

/// The host that has traffic all the time.
pub const NAME: &str = "chat";

/// A watch goes on with the rights that it began with, and the controller asks for 60 s of it; 30 s more are for a loaded
/// machine. Nothing but time ends it sooner.
pub const WATCH_ENDS: Duration = Duration::from_secs(90);

pub struct Serving {
    pub site: Site,
    pub controller: Controller,
    pub dataplane: Dataplane,
    pub traffic: Traffic,
}

impl Serving {
    pub async fn start(cluster: &Arc<Cluster>) -> Self {
        Self::start_at(Site::install(cluster).await).await
    }

    pub async fn start_at(site: Site) -> Self {
        let controller = site.leader("controller-0").await;
        let dataplane = site.dataplane("dataplane-0").await;
        site.serves_new(&dataplane, NAME).await;
        let traffic = Traffic::start(&site.client(&dataplane, NAME)).await;
        Self {
            site,
            controller,
            dataplane,
            traffic,
        }
    }

    /// Whether the controller's metrics say that this is watched.
    pub async fn is_fresh(&self, watched: &str) -> bool {
        let labels = [("watched", watched)];
        let counts = counts(&self.controller).await;
        counts.sum("ws_ingress_controller_watch_fresh", &labels) == 1
    }

    /// Waits until the controller says, in both places, that this grows stale, and for this reason. It stays ready.
    pub async fn grows_stale(&self, watched: &str, why: &str) {
        let words = format!("warning: {watched}: stale for ");
        wait::until_limit(&words, WATCH_ENDS, async || {
            let (status, body) = self.controller.readiness().await?;
            assert_eq!(status, 200, "{body}");
            let line = body.lines().find(|line| line.starts_with(&words))?;
            line.contains(why).then_some(())
        })
        .await;
        assert!(!self.is_fresh(watched).await, "{watched}");
    }

    /// Waits until it does not say so any more.
    pub async fn is_well_again(&self, watched: &str) {
        let words = format!("{watched} is watched again");
        wait::until_limit(&words, RECOVERY, async || {
            self.is_fresh(watched).await.then_some(())
        })
        .await;
        let (_, body) = self.controller.readiness().await.expect("it answers");
        assert!(!body.contains(&format!("warning: {watched}: ")), "{body}");
    }

    /// Applies all objects of another host.
    pub async fn apply(&self, name: &str) {
        let manifests = self.site.manifests(name, &[self.site.echo.address]);
        self.site.namespace.kubectl.apply(&manifests).await;
    }

    /// Waits until some more new clients came, and sees that this host is still not served.
    pub async fn cannot_know(&self, name: &str) {
        let handshakes = self.traffic.handshakes();
        wait::until_limit("more handshakes", RECOVERY, async || {
            (self.traffic.handshakes() > handshakes + 10).then_some(())
        })
        .await;
        let client = self.site.client(&self.dataplane, name);
        assert_ne!(client.status().await, Some(101), "it cannot be known");
    }

    /// Waits until the dataplane follows a controller, or does not; it is ready all the time.
    pub async fn follows(&self, expected: bool, limit: Duration) {
        let what = format!("the dataplane follows a controller: {expected}");
        wait::until_limit(&what, limit, async || {
            let (status, body) = self.dataplane.readiness().await?;
            assert_eq!(status, 200, "{body}");
            let metrics = self.dataplane.metrics().await;
            let follows = metrics.sum("ws_ingress_push_following", &[]) == 1;
            (follows == expected).then_some(())
        })
        .await;
    }

    /// When the route of [`NAME`] became Programmed.
    pub async fn programmed_since(&self) -> Value {
        let route = self.site.route(NAME).await;
        let programmed = condition(&route, "Programmed").expect("the condition");
        programmed["lastTransitionTime"].clone()
    }
}
