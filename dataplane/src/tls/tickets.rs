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
#[derive(Debug, Clone)]
pub(super) struct Tickets {
    sealing: Arc<dyn ProducesTickets>,
}

impl Tickets {
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let sealing = aws_lc_rs::Ticketer::new()?;
        Ok(Self { sealing })
    }

    pub(super) fn enabled(&self) -> bool {
        self.sealing.enabled()
    }

    /// In seconds.
    pub(super) fn lifetime(&self) -> u32 {
        self.sealing.lifetime()
    }

    /// A ticket for `session` that is good under `policy`.
    pub(super) fn seal(&self, policy: &TlsPolicy, session: &[u8]) -> Option<Vec<u8>> {
        let bound = [policy.as_bytes(), session].concat();
        self.sealing.encrypt(&bound)
    }

    /// The session of a ticket; nothing if it was given under another policy, which leads to a full handshake.
    pub(super) fn open(&self, policy: &TlsPolicy, ticket: &[u8]) -> Option<Vec<u8>> {
        let bound = self.sealing.decrypt(ticket)?;
        let session = bound.strip_prefix(policy.as_bytes())?;
        Some(session.to_vec())
    }
}
