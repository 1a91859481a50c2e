//! The bench of the relay, `make bench`: what ws-ingress and other proxies use of CPU and memory for the same work, side by side in
//! one run. `docs/performance.md` says how to repeat it and what each figure means.
//!
//! It starts the real programs, as people run them; client and backend are its own, so that nothing is measured with the product's
//! code. The proxy has one CPU for itself, client and backend share another. Nothing passes or fails: what misses its line is marked,
//! and a run that proves nothing says so.
//!
//! | part | what it holds |
//! |---|---|
//! | [`options`], [`figure`] | the command line; the loads, their figures, the lines |
//! | [`run`] | rounds of loads on peers, and what each load's figures are |
//! | [`peer`], `configuration` | starting the proxies; their files |
//! | [`socket`], [`scanner`] | the client's side of one WebSocket; frames in a stream |
//! | [`backend`] | the other side, a process of its own |
//! | [`loads`], [`open_loop`], [`pace`], [`memory`] | what is put on a proxy |
//! | [`account`], [`window`] | CPU time and memory of processes; watching a load |
//! | [`statistics`], [`results`], [`report`] | medians; whether a run counts; the tables |

pub mod account;
pub mod backend;
mod configuration;
pub mod figure;
pub mod loads;
pub mod memory;
pub mod open_loop;
pub mod options;
pub mod pace;
pub mod peer;
pub mod report;
pub mod results;
pub mod run;
pub mod scanner;
pub mod socket;
pub mod statistics;
pub mod window;
