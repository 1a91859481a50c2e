//! Debug of the messages that hold keys, or thousands of resources: lengths and counts, never bytes.
//!
//! The build leaves their derived Debug out. The messages around them derive theirs and so end here.

use std::fmt;

use crate::wire;

/// Bytes that are not shown.
struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl fmt::Debug for wire::Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, key: _ } = self;
        f.debug_struct("Serve")
            .field("chain", &chain.len())
            .field("key", &format_args!("<key>"))
            .finish()
    }
}

impl fmt::Debug for wire::Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            requires,
            body,
        } = self;
        f.debug_struct("Resource")
            .field("key", key)
            .field("requires", requires)
            .field("body", &Hidden(body.len()))
            .finish()
    }
}

impl fmt::Debug for wire::Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base,
            version,
            upserts,
            removals,
            more,
        } = self;
        f.debug_struct("Update")
            .field("full", &base.is_none())
            .field("version", &format_args!("{version:x}"))
            .field("upserts", &upserts.len())
            .field("removals", &removals.len())
            .field("more", more)
            .finish()
    }
}
