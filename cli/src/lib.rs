//! The command line of ws-ingress. `standalone` serves from files without a cluster: `manifests` reads them, `controller`
//! compiles them, `dataplane` serves them, `standalone` wires the three.

pub mod args;
mod classes;
mod findings;
mod manifests;
pub mod output;
mod quoting;
pub mod standalone;
