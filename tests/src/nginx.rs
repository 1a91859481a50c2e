//! Real nginx, as people run it: the files of `examples/nginx-recipe/nginx` with ports and paths of the test put in.
//!
//! One process without a master, so that its end by its pid is the end of all of it; every path lies in a folder of the test; nothing
//! of the system's own nginx (`/etc/nginx`, its service) is read or started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::certificate::Issued;
use crate::process::{Process, run_to_end};
use crate::tools::{self, Tool};
use crate::wait::{self, LIMIT};

/// A running nginx; it ends with its owner.
pub struct Nginx {
    _process: Process,
    _folder: TempDir,
}

/// A folder where nginx will run, before it does.
pub struct Prepared {
    program: PathBuf,
    folder: TempDir,
    recipe: String,
}

impl Prepared {
    /// `recipe` is the name of a file of the example. `None` when nginx is not installed, which is recorded.
    pub fn new(recipe: &str) -> Option<Self> {
        let file = examples().join("nginx").join(recipe);
        Self::of(fs::read_to_string(&file).expect("a file of the example"))
    }

    /// This text instead of a file of the example.
    pub fn of(recipe: String) -> Option<Self> {
        let program = tools::require(Tool::Nginx)?;
        let folder = TempDir::with_prefix("ws-ingress-nginx-").expect("a temporary folder");
        Some(Self {
            program,
            folder,
            recipe,
        })
    }

    /// Puts `to` in every place of `from`, which must be there: the file that runs is the one that people read.
    #[must_use]
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.recipe.contains(from), "the example has no {from:?}");
        self.recipe = self.recipe.replace(from, to);
        self
    }

    /// The certificate of a host, where the example has it in `/etc/nginx/tls`.
    #[must_use]
    pub fn with_certificate(self, host: &str, issued: &Issued) -> Self {
        self.with_file(&format!("{host}.crt"), &issued.chain_pem)
            .with_file(&format!("{host}.key"), &issued.key_pem)
    }

    /// A file that the text has in `/etc/nginx/tls`.
    #[must_use]
    pub fn with_file(self, name: &str, content: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("a file of nginx");
        let from = format!("/etc/nginx/tls/{name}");
        self.with(&from, &path.display().to_string())
    }

    /// Has it checked by `nginx -t`, starts it, and returns once it takes connections at `address`.
    pub async fn start(self, address: SocketAddr) -> Nginx {
        let path = self.folder.path();
        fs::write(path.join("recipe.conf"), &self.recipe).expect("the recipe");
        fs::write(path.join("nginx.conf"), around(path)).expect("the file around it");
        let arguments = [
            "-p".as_ref(),
            path.as_os_str(),
            "-c".as_ref(),
            "nginx.conf".as_ref(),
            "-e".as_ref(),
            "stderr".as_ref(),
        ];
        let mut check = Command::new(&self.program);
        check.args(arguments).arg("-t");
        let checked = run_to_end("nginx -t", check, "", LIMIT).await;
        assert!(checked.success, "{}", checked.stderr);
        let mut command = Command::new(&self.program);
        command.args(arguments);
        let mut process = Process::spawn("nginx", command);
        wait::until("nginx takes connections", async || {
            assert!(process.runs(), "nginx ended by itself");
            TcpStream::connect(address).await.ok()
        })
        .await;
        Nginx {
            _process: process,
            _folder: self.folder,
        }
    }
}

/// The folder of the example.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nginx-recipe")
}

/// What Debian's `nginx.conf` is around the files of `conf.d`, with every path in `folder`.
fn around(folder: &Path) -> String {
    // As root nginx would give up its rights and could not write to a folder of root's.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folder = folder.display();
    let temporary = kinds.map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"));
    let temporary = temporary.concat();
    format!(
        "{user}\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 512; }}\nhttp {{\n    access_log off;\n{temporary}    include {folder}/recipe.conf;\n}}\n"
    )
}
