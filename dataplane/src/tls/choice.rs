//! What a `ClientHello` is answered with: the certificate of the hostname that it names, and tickets that are good for its policy.
//!
//! rustls asks in the middle of a handshake, once it has read the message and before it looks at a ticket. The first answer is the one of the
//! whole handshake, also if the client has to be asked for a second `ClientHello`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use route_table::{Certificate, HostTls, Hostname, RouteTable, TlsPolicy};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tickets::Tickets;

/// Why a `ClientHello` gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the ClientHello names no hostname that is served")]
    UnrecognizedName,
    #[error("no usable certificate for this hostname")]
    NoCertificate,
}

impl Refusal {
    /// The `outcome` label of the metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::UnrecognizedName => "unrecognized_name",
            Self::NoCertificate => "no_certificate",
        }
    }
}

/// Chooses for one handshake.
#[derive(Debug)]
pub(super) struct Choosing {
    /// Until the choice is made: a client that falls silent keeps no old table.
    table: Mutex<Option<Arc<RouteTable>>>,
    tickets: Tickets,
    made: OnceLock<Result<Choice, Refusal>>,
}

#[derive(Debug)]
struct Choice {
    name: Hostname,
    certificate: Arc<Certificate>,
    policy: TlsPolicy,
}

impl Choosing {
    pub(super) fn new(table: Arc<RouteTable>, tickets: Tickets) -> Self {
        Self {
            table: Mutex::new(Some(table)),
            tickets,
            made: OnceLock::new(),
        }
    }

    /// Why there is no certificate, if rustls has asked and there is none.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.made.get()?.as_ref().err().copied()
    }

    /// The hostname that the client is served as.
    pub(super) fn name(&self) -> Option<Hostname> {
        Some(self.choice()?.name.clone())
    }

    fn make(&self, hello: &ClientHello<'_>) -> Result<Choice, Refusal> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table.take().ok_or(Refusal::UnrecognizedName)?;
        choose(hello, &table)
    }

    fn choice(&self) -> Option<&Choice> {
        self.made.get()?.as_ref().ok()
    }
}

impl ResolvesServerCert for Choosing {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let made = self.made.get_or_init(|| self.make(&hello));
        Some(made.as_ref().ok()?.certificate.certified().clone())
    }
}

/// Nothing is sealed or opened before the choice: a ticket is worth something under its policy alone.
impl ProducesTickets for Choosing {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(&self.choice()?.policy, session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(&self.choice()?.policy, ticket)
    }
}

/// The hostname of a `ClientHello` and the best certificate for it: the first that names it and that the client can verify the
/// signature of, else the first that the client can verify, else the first.
fn choose(hello: &ClientHello<'_>, table: &RouteTable) -> Result<Choice, Refusal> {
    let name = hello
        .server_name()
        .and_then(|name| Hostname::parse(name).ok())
        .ok_or(Refusal::UnrecognizedName)?;
    let host = table.host(&name).ok_or(Refusal::UnrecognizedName)?;
    let HostTls::Terminate { certificates, .. } = host.tls() else {
        return Err(Refusal::UnrecognizedName);
    };
    let usable = certificates.iter().filter_map(|key| table.certificate(key));
    let can_sign = |certificate: &Certificate| {
        certificate
            .certified()
            .key
            .choose_scheme(hello.signature_schemes())
            .is_some()
    };
    // Of equals, min_by_key keeps the first.
    let best =
        usable.min_by_key(|certificate| (!can_sign(certificate), !certificate.is_for(&name)));
    let certificate = best.ok_or(Refusal::NoCertificate)?.clone();
    let policy = table.tls_policy(host);
    Ok(Choice {
        name,
        certificate,
        policy,
    })
}
