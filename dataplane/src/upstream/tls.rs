//! TLS to a backend: the name is asked for, and the certificate is verified for it. There is no other mode.
//!
//! In: a TCP stream, the name, and whose signature counts. Out: the TLS stream, which speaks HTTP/1.1. A client configuration, with its
//! session tickets, is made once for each set of authorities.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use route_table::{Authorities, Hostname};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::send_limit::SendLimit;
use crate::stream::Stream;

/// Where systems keep the authorities that they trust, in one file: Debian, Alpine and our image; Fedora; macOS and the BSDs.
const SYSTEM_FILES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Most bytes of such a file; Debian's has 220 KB.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Most private sets that are kept ready; a cluster has a few. When there are more all are made anew.
const MAX_KEPT: usize = 64;

/// Why there is no TLS to backends.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no certificate in {} can be used; it must hold the authorities in PEM", path.display())]
    Empty { path: PathBuf },
}

/// Why a backend was not reached over TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFailure {
    #[error("the system's list of authorities could not be read")]
    NoSystemAuthorities,
    #[error("TLS cannot be set up")]
    SetUp(#[source] rustls::Error),
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
}

/// Speaks TLS to backends.
#[derive(Debug)]
pub(crate) struct BackendTls {
    /// Nothing if the system has no list.
    system: Option<Arc<ClientConfig>>,
    private: Mutex<HashMap<Authorities, Arc<ClientConfig>>>,
}

impl BackendTls {
    /// Trusts the authorities in `file`, or those of the system, for backends that name none of their own.
    ///
    /// # Errors
    /// If `file` is given and holds none. A system without a list is no error before a backend needs it.
    pub(crate) fn new(file: Option<&Path>) -> Result<Self, AuthoritiesError> {
        let system = match file {
            Some(path) => Some(read(path)?),
            None => SYSTEM_FILES
                .iter()
                .find_map(|path| read(Path::new(path)).ok()),
        };
        if system.is_none() {
            tracing::info!(
                "this system has no list of authorities; TLS to an ExternalBackend needs its caCertificates, or --backend-ca-file"
            );
        }
        Ok(Self {
            system: system.and_then(|roots| config(roots).ok()).map(Arc::new),
            private: Mutex::default(),
        })
    }

    /// Performs the handshake; the caller sets the deadline.
    pub(crate) async fn connect(
        &self,
        stream: SendLimit,
        host: &Hostname,
        authorities: &Authorities,
    ) -> Result<Stream, TlsFailure> {
        let config = self.config(authorities)?;
        // A hostname is always a name that TLS can ask for.
        let name = ServerName::try_from(host.to_string())
            .map_err(|error| TlsFailure::Handshake(io::Error::other(error)))?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        let stream = connected.map_err(TlsFailure::Handshake)?;
        Ok(Stream::Connected(Box::new(stream)))
    }

    fn config(&self, authorities: &Authorities) -> Result<Arc<ClientConfig>, TlsFailure> {
        let listed = match authorities {
            Authorities::System => {
                return self.system.clone().ok_or(TlsFailure::NoSystemAuthorities);
            }
            Authorities::These(listed) => listed,
        };
        let mut kept = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = kept.get(authorities) {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        for certificate in listed {
            roots.add(certificate.clone()).map_err(TlsFailure::SetUp)?;
        }
        let made = Arc::new(config(roots).map_err(TlsFailure::SetUp)?);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(authorities.clone(), made.clone());
        Ok(made)
    }
}

fn config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read(path: &Path) -> Result<RootCertStore, AuthoritiesError> {
    let unreadable = |source| AuthoritiesError::File {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    // One that cannot be read is one less to trust.
    let (usable, _) =
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    if usable == 0 {
        return Err(AuthoritiesError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(roots)
}
