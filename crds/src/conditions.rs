//! Condition types and reasons of a `WebSocketRoute`, Gateway API's words wherever it has one.
//!
//! The reason of a condition is for machines and stays as it is; the message beside it is for people and may change. Which
//! finding leads to which condition is the controller's business (`compile/status.rs`).

use std::fmt;

/// What a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The route is valid and holds all its hostnames.
    Accepted,
    /// Everything that the route refers to was found and can be used.
    ResolvedRefs,
    /// Every dataplane that was ready has taken this generation of the route.
    Programmed,
}

/// The three states of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// Why a condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionReason {
    /// `Accepted=True`.
    Accepted,
    /// A field has a value that cannot be served; the route is not served at all.
    UnsupportedValue,
    /// A hostname is held by a route of another namespace; the others are served.
    HostnameConflict,
    /// A hostname's TLS is decided by an older route and this one says otherwise; the other hostnames are served.
    TlsConflict,
    /// `ResolvedRefs=True`.
    ResolvedRefs,
    /// A certificate is missing, unusable, out of its time, or for other names.
    InvalidCertificateRef,
    /// A reference leads into another namespace, and no ReferenceGrant there permits it.
    RefNotPermitted,
    /// A Service or its port does not exist.
    BackendNotFound,
    /// The backend speaks a protocol that is not spoken here.
    UnsupportedProtocol,
    /// An endpoint's address is one that no route may reach. Not Gateway API's: it has no word for it.
    EndpointNotPermitted,
    /// `Programmed=True`.
    Programmed,
    /// The route is not served at all; `Accepted` says why.
    Invalid,
    /// There is no dataplane that is ready.
    NoResources,
    /// A dataplane cannot serve the route as it is. Not Gateway API's: it has no word for it.
    Rejected,
    /// The route, or something that it refers to, is over a limit of what a dataplane is sent. Not Gateway API's either.
    OverLimit,
    /// Something was not read yet, or a dataplane has not answered yet.
    Pending,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
        }
    }
}

impl ConditionStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl ConditionReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::HostnameConflict => "HostnameConflict",
            Self::TlsConflict => "TLSConflict",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::InvalidCertificateRef => "InvalidCertificateRef",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::BackendNotFound => "BackendNotFound",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::EndpointNotPermitted => "EndpointNotPermitted",
            Self::Programmed => "Programmed",
            Self::Invalid => "Invalid",
            Self::NoResources => "NoResources",
            Self::Rejected => "Rejected",
            Self::OverLimit => "OverLimit",
            Self::Pending => "Pending",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ConditionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
