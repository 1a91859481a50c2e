//! What a compile hands on: to the push server, which sends the resources, and to the status writer.
//!
//! Every replica compiles, so that a new leader has everything at once; only the leader sends and writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use route_table::{Resources, RouteKey};

use crate::compile::RouteStatus;

/// The result of one compile.
#[derive(Debug, Clone)]
pub struct Output {
    /// Counts the sets of resources that this process has published, from 1: two outputs have the same number if and only if
    /// their resources are the same.
    pub sequence: u64,
    pub resources: Arc<Resources>,
    /// Of every route of our class, those that are not served too.
    pub statuses: Arc<BTreeMap<RouteKey, Report>>,
}

/// What is said of one route, and of which object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `metadata.uid`: a route that was deleted and made again must not get the status of the first.
    pub uid: Arc<str>,
    pub status: RouteStatus,
}
