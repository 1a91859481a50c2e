//! A route while it is compiled: what was read of it, and what is wrong with it.
//!
//! Made by `routes`; each step after it takes out what may not be served and adds its findings.

use std::num::NonZeroU16;

use jiff::Timestamp;
use route_table::{
    BackendKey, CertificateKey, ExternalKey, HostPattern, HostTls, RouteHostname, RouteKey, Rule,
};

use super::{Finding, Reason};

/// A route on its way through the steps.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) key: RouteKey,
    pub(super) generation: Option<i64>,
    pub(super) created: Option<Timestamp>,
    /// The valid ones of `spec.hostnames`, each once.
    pub(super) claims: Vec<Claim>,
    /// Absent, or not valid.
    pub(super) tls: Option<HostTls>,
    /// There is a tls block, and it is not valid.
    pub(super) tls_is_broken: bool,
    /// A certificate that the tls block names is not granted, and so not in `certificate_refs`.
    pub(super) tls_is_partial: bool,
    /// The Secrets that the tls block names, each once, with the field that does.
    pub(super) certificate_refs: Vec<(String, CertificateKey)>,
    pub(super) rules: Vec<Rule>,
    /// Every Service that a rule names, with the field that does.
    pub(super) backend_refs: Vec<(String, BackendKey)>,
    /// Every external backend that a rule names.
    pub(super) external_refs: Vec<ExternalRef>,
    /// The hostnames that it may serve; filled by `claims`.
    pub(super) hostnames: Vec<RouteHostname>,
    pub(super) findings: Vec<Finding>,
}

/// A reference to an external backend.
#[derive(Debug)]
pub(super) struct ExternalRef {
    pub(super) field: String,
    /// Index in `rules`.
    pub(super) rule: usize,
    pub(super) key: ExternalKey,
    /// Must be the backend's own, if it is there.
    pub(super) port: Option<NonZeroU16>,
}

/// A hostname that a route lists.
#[derive(Debug)]
pub(super) struct Claim {
    /// Index in `spec.hostnames`.
    pub(super) index: usize,
    pub(super) pattern: HostPattern,
    /// Whether `status.claims` lists it.
    pub(super) recorded: bool,
    /// What the claim is ranked by; unknown ranks last.
    pub(super) since: Option<Timestamp>,
    /// The newest claim on the hostname, its own included: one of unknown age is recorded as later than this.
    pub(super) newest: Option<Timestamp>,
}

impl Draft {
    /// Whether a field is such that nothing of the route may be served.
    pub(super) fn is_broken(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.reason == Reason::UnsupportedValue)
    }

    pub(super) fn is_served(&self) -> bool {
        !self.is_broken() && !self.hostnames.is_empty()
    }

    pub(super) fn refuse(&mut self, field: &str, text: &str) {
        self.findings
            .push(Finding::new(Reason::UnsupportedValue, field, text));
    }

    /// Refuses a list that is empty or longer than the schema has it, and gives back what fits.
    pub(super) fn bounded<'a, T>(&mut self, field: &str, list: &'a [T], max: usize) -> &'a [T] {
        if list.is_empty() {
            self.refuse(field, "is empty; give at least one entry");
        } else if list.len() > max {
            let count = list.len();
            self.refuse(
                field,
                &format!("has {count} entries; at most {max} are allowed, use several routes"),
            );
        }
        list.get(..max).unwrap_or(list)
    }
}
