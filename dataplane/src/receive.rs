//! The dataplane's end of the push: dial, take updates, swap, acknowledge.
//!
//! In: where the controllers are, the public CA bundle, the pod's token. Out: tables into a watch channel, and a [`Link`] that
//! says how the connection stands. Whatever happens here, the last accepted table is served on: without any controller the
//! dataplane works and says how stale it is. What a stream taught (the set that is held, the term of the last leader) outlives
//! it, so that the next one begins with a delta and no old leader is followed again.

mod apply;
mod dial;
mod session;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use push::{Fence, Held};
use route_table::RouteTable;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use apply::Built;
pub use dial::{ControllerAddress, ControllerAddressError};
use session::{Ended, NotFollowed};

/// First pause between two rounds over all controllers, and the longest; a stream that lasted starts over.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where the controllers are and who we are.
#[derive(Debug, Clone)]
pub struct Receive {
    /// The headless Service of the controllers; every address is dialled until one says Welcome.
    pub controller: ControllerAddress,
    /// Public CA certificates in PEM; read anew at each dial.
    pub ca_file: PathBuf,
    /// The projected ServiceAccount token; read anew at each dial.
    pub token_file: PathBuf,
    /// Name of the pod, for people.
    pub pod: String,
}

/// How the connection to the controllers stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// When the state below began.
    pub since: Instant,
    pub state: LinkState,
    /// How many resources are not served as they were sent.
    pub rejected: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// A leader has said Welcome.
    Following,
    /// No leader; why the last dial failed, once one did.
    Alone { reason: Option<&'static str> },
}

/// Everything that outlives a stream.
struct Receiver {
    config: Receive,
    held: Held,
    followed: Option<Fence>,
    tables: watch::Sender<Arc<RouteTable>>,
    link: watch::Sender<Link>,
}

/// A channel for [`run`]'s second output.
pub fn link() -> (watch::Sender<Link>, watch::Receiver<Link>) {
    watch::channel(Link {
        since: Instant::now(),
        state: LinkState::Alone { reason: None },
        rejected: 0,
    })
}

/// Follows the leader, and finds the next one when it is gone. Never returns.
pub async fn run(
    config: Receive,
    tables: watch::Sender<Arc<RouteTable>>,
    link: watch::Sender<Link>,
) {
    let mut receiver = Receiver {
        config,
        held: Held::default(),
        followed: None,
        tables,
        link,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        // A stream that was followed and ends at once, again and again, is no reason to hurry.
        if receiver.round().await && began.elapsed() >= LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        // Half of it is random: after a leader has died, all dataplanes dial at once otherwise.
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Receiver {
    /// Dials every controller once, in random order; whether one of them was followed.
    async fn round(&mut self) -> bool {
        let mut addresses = match dial::resolve(&self.config.controller).await {
            Ok(addresses) => addresses,
            Err(error) => {
                self.alone("the controller's name does not resolve");
                tracing::warn!(%error, "the controller's name does not resolve");
                return false;
            }
        };
        fastrand::shuffle(&mut addresses);
        for address in addresses {
            match self.follow(address).await {
                Ok(Ended { reason }) => {
                    tracing::info!(%address, %reason, "the controller's stream ended; the last table is served on");
                    self.alone("the stream ended");
                    return true;
                }
                // Not an event: all replicas but one answer so.
                Err(NotFollowed::NotTheLeader) => {
                    tracing::debug!(%address, "not the leader");
                    self.alone(NotFollowed::NotTheLeader.label());
                }
                Err(not_followed) => {
                    let cause = chain(&not_followed);
                    tracing::warn!(%address, %cause, "cannot follow this controller");
                    self.alone(not_followed.label());
                }
            }
        }
        false
    }

    fn alone(&self, reason: &'static str) {
        self.link.send_modify(|link| {
            if link.state == LinkState::Following {
                link.since = Instant::now();
            }
            link.state = LinkState::Alone {
                reason: Some(reason),
            };
        });
    }

    fn following(&self) {
        self.link.send_modify(|link| {
            link.since = Instant::now();
            link.state = LinkState::Following;
        });
    }

    /// Swaps in what was built.
    fn swap(&mut self, built: Built) {
        let Built { table, rejected } = built;
        if let Some(table) = table {
            tracing::debug!(generation = table.generation(), version = %self.held.version(), "new table");
            self.tables.send_replace(table);
        }
        self.link
            .send_if_modified(|link| std::mem::replace(&mut link.rejected, rejected) != rejected);
    }
}

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
