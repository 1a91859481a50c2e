//! `metadata.name` and `metadata.namespace`: only what the API server takes.
//!
//! Names go into logs, metrics and header fields. In a cluster the API server has checked them; here nobody else does. The errors
//! do not repeat the name, whose line they give.

use crds::name::{is_label, is_subdomain};

/// What a name may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// RFC 1123 labels joined by dots, as most objects are named.
    Subdomain,
    /// One RFC 1123 label, as namespaces and Services are named.
    Label,
}

impl Form {
    pub(super) fn fits(self, name: &str) -> bool {
        match self {
            Self::Subdomain => is_subdomain(name),
            Self::Label => is_label(name),
        }
    }

    pub(super) fn mend(self) -> &'static str {
        match self {
            Self::Subdomain => {
                "write lower case letters, digits, '-' and '.', begin and end with a letter or digit, 253 characters at most"
            }
            Self::Label => {
                "write lower case letters, digits and '-', begin and end with a letter or digit, 63 characters at most"
            }
        }
    }
}
