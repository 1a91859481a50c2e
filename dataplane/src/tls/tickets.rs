//! Session tickets that are good for one TLS policy.
//!
//! A client that resumes is not asked again what its first handshake had to show, so its ticket must not work under another policy: of another
//! host, of the host's next owner, or of the same host after its certificates changed. All policies share one key that rolls, and each ticket
//! carries, sealed, the policy that it was given under. Nothing is kept by host, so nothing has to be cleared when a table is swapped, and
//! what did not change goes on to resume.

use std::sync::Arc;

use route_table::TlsPolicy;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;

/// The key of all tickets of this process.
#[derive(Debug)]
pub(super) struct Tickets {
    sealing: Arc<dyn ProducesTickets>,
}

impl Tickets {
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let sealing = aws_lc_rs::Ticketer::new()?;
        Ok(Self { sealing })
    }

    /// Gives and takes the tickets of one policy.
    pub(super) fn under(&self, policy: TlsPolicy) -> Arc<dyn ProducesTickets> {
        Arc::new(PolicyTickets {
            sealing: self.sealing.clone(),
            policy,
        })
    }
}

#[derive(Debug)]
struct PolicyTickets {
    sealing: Arc<dyn ProducesTickets>,
    policy: TlsPolicy,
}

impl ProducesTickets for PolicyTickets {
    fn enabled(&self) -> bool {
        self.sealing.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.sealing.lifetime()
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let bound = [self.policy.as_bytes(), session].concat();
        self.sealing.encrypt(&bound)
    }

    /// Nothing for a ticket of another policy, which leads to a full handshake.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let bound = self.sealing.decrypt(ticket)?;
        let session = bound.strip_prefix(self.policy.as_bytes())?;
        Some(session.to_vec())
    }
}
