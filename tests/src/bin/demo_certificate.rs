//! `demo_certificate`: a certificate for localhost as a Kubernetes Secret, for `make demo`.
//!
//! Keeps the one that is there while it is valid, so that a browser asks once and not at every run. Writes the certificate
//! without its key beside it, for `curl --cacert`. The Secret is readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tests::manifests::secret_of;

const DAY: Duration = Duration::from_hours(24);
/// How long it is valid. Browsers refuse more than 398 days.
const VALID_FOR: Duration = Duration::from_hours(90 * 24);
/// How the first line of the Secret begins; the end of its validity follows, in seconds since 1970.
const MARK: &str = "# Made by `make demo` for localhost; valid until ";

/// Writes certificate.yaml (a Secret) and certificate.pem.
#[derive(Parser)]
struct Args {
    /// Where to write them; made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,

    /// Name of the Secret.
    #[arg(long, default_value = "demo-tls")]
    name: String,
}

fn main() -> anyhow::Result<()> {
    let Args { folder, name } = Args::parse();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (manifest, public) = (
        folder.join("certificate.yaml"),
        folder.join("certificate.pem"),
    );
    let now = SystemTime::now();
    if valid_until(&manifest).is_some_and(|until| until > now + DAY) && public.exists() {
        return Ok(());
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params(now)?
        .self_signed(&key)
        .context("cannot make a certificate")?;
    let until = (now + VALID_FOR).duration_since(UNIX_EPOCH)?.as_secs();
    let secret = secret_of(&name, &certificate.pem(), &key.serialize_pem());
    write(&public, 0o644, &certificate.pem())?;
    write(&manifest, 0o600, &format!("{MARK}{until}\n{secret}"))
}

fn params(now: SystemTime) -> anyhow::Result<CertificateParams> {
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut params = CertificateParams::new(names).context("cannot name the certificate")?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "ws-ingress demo");
    // A clock that is a little behind must not find it in the future.
    params.not_before = (now - DAY).into();
    params.not_after = (now + VALID_FOR).into();
    Ok(params)
}

fn valid_until(manifest: &Path) -> Option<SystemTime> {
    let text = fs::read_to_string(manifest).ok()?;
    let seconds = text.lines().next()?.strip_prefix(MARK)?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Puts a file in place whole, with its mode from the first byte on.
fn write(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let written = (|| {
        let _left_over = fs::remove_file(&fresh);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&fresh, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}
