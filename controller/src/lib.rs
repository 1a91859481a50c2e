//! The controller: Kubernetes objects in, the route table and the status of every route out.
//!
//! Objects -> [`store`] -> [`debounce`] -> Snapshot -> [`compile`] -> resources and statuses. In standalone files drive it, and
//! [`publish`] hands tables straight across. In a cluster `run` wires the rest: `watch` follows the API server, `intake` brings
//! what it shows into the Store, `compiler` makes an [`output`], which the push sends and `status_writer` tells the API; `leader`
//! decides which replica does so, `fleet`, [`delivery`] and [`programmed`] know who has taken what. `compile` is pure; Kubernetes
//! types stop here, behind `store` and `compile` nothing knows them.

pub mod args;
mod backoff;
mod blocking;
pub mod ca;
pub mod compile;
mod compiler;
pub mod debounce;
mod decode;
pub mod delivery;
mod desired;
mod events;
mod failure;
pub mod fleet;
mod freshness;
mod health;
mod intake;
pub mod leader;
mod metrics;
mod observed;
pub mod output;
pub mod programmed;
pub mod publish;
pub mod push_server;
mod quietly;
pub mod run;
mod secret_queue;
mod secret_reader;
mod secrets;
mod sources;
mod status_listener;
mod status_writer;
pub mod store;
pub mod token;
mod watch;
