//! From the controllers' name to an authenticated HTTP/2 channel.
//!
//! TLS 1.3 only, with the CA bundle as it is at this moment and one fixed server name: whoever holds a certificate of that CA is
//! a controller, whatever address it answers at. There is no other mode.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::Resolver;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// TCP and TLS to a controller; it is in the same cluster.
const CONNECT: Duration = Duration::from_secs(5);
/// A look-up over all name servers.
const RESOLVE: Duration = Duration::from_secs(5);
/// A quiet stream is asked for a sign of life this often, and given up this long after.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most controllers that are dialled in one round; there are two or three.
const MAX_CONTROLLERS: usize = 16;
/// Most bytes of the CA bundle: two certificates of about 1 KiB.
const MAX_CA_BYTES: u64 = 64 * 1024;

/// `HOST:PORT`, where HOST is a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerAddress {
    host: String,
    port: u16,
}

/// Why a text is not `HOST:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not HOST:PORT; write ws-ingress-controller.ws-ingress.svc:9443, 10.0.0.1:9443 or [::1]:9443"
)]
pub struct ControllerAddressError;

impl FromStr for ControllerAddress {
    type Err = ControllerAddressError;

    fn from_str(text: &str) -> Result<Self, ControllerAddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or(ControllerAddressError)?;
        let port = port.parse().map_err(|_| ControllerAddressError)?;
        if host.is_empty() || host.contains([':', '[', ']', '/']) {
            return Err(ControllerAddressError);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the name servers could not be read from the system")]
    Resolver(#[source] hickory_resolver::net::NetError),
    #[error("the look-up failed")]
    LookUp(#[source] hickory_resolver::net::NetError),
    #[error("the look-up took longer than {RESOLVE:?}")]
    LookUpTimeout,
    #[error("the CA bundle cannot be read")]
    CaFile(#[source] io::Error),
    #[error("the CA bundle holds no usable certificate")]
    Ca,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("the controller cannot be reached, or is not one")]
    Connect(#[source] tonic::transport::Error),
}

/// All addresses behind the name, looked up anew each time: replicas come and go.
pub(super) async fn resolve(controller: &ControllerAddress) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(address) = controller.host.parse() {
        return Ok(vec![SocketAddr::new(address, controller.port)]);
    }
    let resolver = Resolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(DialError::Resolver)?;
    let looking_up = timeout(RESOLVE, resolver.lookup_ip(controller.host.as_str()));
    let found = looking_up
        .await
        .map_err(|_| DialError::LookUpTimeout)?
        .map_err(DialError::LookUp)?;
    Ok(found
        .iter()
        .take(MAX_CONTROLLERS)
        .map(|address| SocketAddr::new(address, controller.port))
        .collect())
}

/// Connects to one controller.
pub(super) async fn connect(address: SocketAddr, ca_file: &Path) -> Result<Channel, DialError> {
    let tls = TlsConnector::from(Arc::new(tls_config(ca_file).await?));
    let connector = service_fn(move |_: Uri| connect_tls(address, tls.clone()));
    // The URI only fills :authority and :scheme. The connector knows where to, and does TLS itself: tonic refuses "https" with a
    // connector that it does not know to.
    let endpoint = Endpoint::from_shared(format!("http://{}", push::SERVER_NAME))
        .map_err(DialError::Connect)?;
    endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(DialError::Connect)
}

async fn connect_tls(
    address: SocketAddr,
    tls: TlsConnector,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let connecting = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(push::SERVER_NAME).map_err(io::Error::other)?;
        tls.connect(name, tcp).await.map(TokioIo::new)
    };
    timeout(CONNECT, connecting)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn tls_config(ca_file: &Path) -> Result<ClientConfig, DialError> {
    let bundle = super::session::read_bounded(ca_file, MAX_CA_BYTES)
        .await
        .map_err(DialError::CaFile)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle) {
        let certificate = certificate.map_err(|_| DialError::Ca)?;
        roots.add(certificate).map_err(|_| DialError::Ca)?;
    }
    if roots.is_empty() {
        return Err(DialError::Ca);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = versions
        .map_err(DialError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, u16)>) {
        let parsed = text.parse::<ControllerAddress>().ok();
        assert_eq!(
            parsed
                .as_ref()
                .map(|address| (address.host.as_str(), address.port)),
            expected,
            "{text}"
        );
    }

    #[test]
    fn controllers_are_named_by_host_and_port() {
        check(
            "ws-ingress-controller.ws-ingress.svc:9443",
            Some(("ws-ingress-controller.ws-ingress.svc", 9443)),
        );
        check("127.0.0.1:9443", Some(("127.0.0.1", 9443)));
        check("[::1]:9443", Some(("::1", 9443)));
        for bad in [
            "",
            "controller",
            ":9443",
            "controller:",
            "controller:70000",
            "::1:9443",
            "https://controller:9443",
        ] {
            check(bad, None);
        }
    }
}
