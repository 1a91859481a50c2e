//! The dataplane: terminates TLS, checks opening handshakes, routes, and relays WebSockets.
//!
//! One input, a `watch::Receiver<Arc<RouteTable>>`; one way to end, a [`Stop`]. A connection passes, in this order:
//! `listener` -> `tls` -> `connection` -> `request` (the story: `handshake`, the table's look-up, `balance`, `upstream`) -> `relay`, or
//! `forward` for ordinary HTTP. `drain` holds every open relay; `status` and `metrics` show what happens. A new table touches
//! new handshakes only.

mod admin;
#[cfg(feature = "jemalloc")]
mod allocator;
pub mod args;
mod balance;
mod capacity;
mod client;
mod config;
mod connection;
mod drain;
mod fields;
mod filters;
mod forward;
mod frames;
mod handshake;
mod lingering;
mod listener;
mod local_http;
mod loops;
mod matching;
mod metrics;
mod names;
mod open_files;
mod origin;
#[cfg(test)]
mod pieces;
mod plain;
mod pool;
mod proxy_protocol;
pub mod receive;
mod reject;
mod relay;
mod request;
mod request_id;
mod run;
mod seldom;
mod send_limit;
mod signals;
mod status;
mod stream;
mod tls;
mod tunnel;
mod upstream;

pub use admin::{Admin, AdminError};
pub use config::{Config, Limits};
pub use drain::Drained;
pub use listener::BindError;
pub use open_files::raise_open_file_limit;
pub use run::{Addresses, Dataplane, RunError, StartError, Stop};
pub use signals::Signals;
pub use upstream::{AuthoritiesError, SourceError};
