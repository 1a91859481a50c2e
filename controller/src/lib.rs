//! The controller: Kubernetes objects in, the route table and the status of every route out.
//!
//! Objects -> [`store`] -> [`debounce`] -> Snapshot -> [`compile`] -> [`publish`]. Whoever has the objects drives it: files in
//! standalone, the API server's watches in a cluster. `compile` is pure; Kubernetes types stop here, behind `store` and
//! `compile` nothing knows them.

pub mod compile;
pub mod debounce;
pub mod publish;
pub mod store;
