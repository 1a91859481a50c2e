//! The paths of the command line -> the text of every manifest file below them.
//!
//! Files named `*.yaml` and `*.yml` count, in folders at any depth; a file named on the command line counts whatever its name.
//! Names that begin with `.` are skipped: editors' swap files, and the `..data` of a mounted `ConfigMap` or Secret, whose visible
//! names are symlinks into it. Symlinks are followed; a loop is reported, and a file that is reached twice counts once. What
//! could not be listed or looked at is said apart, because a file that is missing there is not known to be gone. Text may hold
//! private keys and is wiped when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use notify::RecursiveMode;
use zeroize::Zeroizing;

/// Largest file. An export of 10 000 endpoints is 3 MB.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// All files together; they are read again at every scan.
const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// Most files; with one Service, slice and route a file that is a large cluster.
const MAX_FILES: usize = 10_000;
/// Deepest folder below a path of the command line. A deeper tree is a home folder named by mistake.
const MAX_DEPTH: usize = 16;

/// The paths of the command line.
#[derive(Debug, Clone)]
pub(crate) struct Roots(Vec<Root>);

#[derive(Debug, Clone)]
struct Root {
    path: PathBuf,
    /// What it was at the start; tells what it means that it is gone.
    folder: bool,
}

/// A path of the command line that is not there when the process starts: a misspelt one, most likely.
#[derive(Debug, thiserror::Error)]
#[error("cannot read manifests from {}", path.display())]
pub(crate) struct RootError {
    path: PathBuf,
    source: io::Error,
}

/// What one look at the disk found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) files: BTreeMap<PathBuf, Contents>,
    /// Folders that could not be listed, and what could not even be looked at, and why. Nothing is known of it and what is below.
    pub(super) unlisted: BTreeMap<PathBuf, String>,
}

/// What a file held at that look.
#[derive(Debug)]
pub(super) enum Contents {
    Text(Zeroizing<String>),
    /// It is there, or may be, but could not be read.
    Unreadable(String),
    /// Named on the command line and not there: evidence, but worth a word.
    Gone,
}

impl Roots {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Result<Self, RootError> {
        let root = |path: PathBuf| match fs::metadata(&path) {
            Ok(metadata) => Ok(Root {
                folder: metadata.is_dir(),
                path,
            }),
            Err(source) => Err(RootError { path, source }),
        };
        paths
            .into_iter()
            .map(root)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The folders in which names may come and go. Beside a file there may be anything, a whole home folder: only its name counts.
    pub(super) fn folders(&self) -> impl Iterator<Item = (&Path, RecursiveMode)> {
        self.0.iter().map(|root| {
            if root.folder {
                (&*root.path, RecursiveMode::Recursive)
            } else {
                (parent(&root.path), RecursiveMode::NonRecursive)
            }
        })
    }

    /// Whether a file of that name may be one that is read. A log beside the manifests is not.
    pub(super) fn may_read(&self, path: &Path) -> bool {
        let named = |root: &Root| root.path.file_name() == path.file_name();
        is_manifest(path) || self.0.iter().any(named)
    }

    pub(super) fn scan(&self) -> Scan {
        let mut walk = Walk::default();
        for root in &self.0 {
            walk.root(root);
        }
        walk.scan
    }
}

impl Scan {
    /// Equal for two looks that found the same.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        self.unlisted.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a file that was not found is known to be gone.
    pub(super) fn proves_absence_of(&self, file: &Path) -> bool {
        !self.unlisted.keys().any(|folder| file.starts_with(folder))
    }
}

impl Hash for Contents {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Text(text) => (0, text.as_str()).hash(state),
            Self::Unreadable(why) => (1, why).hash(state),
            Self::Gone => 2.hash(state),
        }
    }
}

#[derive(Default)]
struct Walk {
    scan: Scan,
    /// Where the files and the folders above the current one really are, symlinks resolved.
    seen: BTreeSet<PathBuf>,
    above: Vec<PathBuf>,
    bytes: u64,
}

impl Walk {
    fn root(&mut self, root: &Root) {
        let path = &root.path;
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.folder(path),
            Ok(_) => self.file(path),
            Err(error) if root.folder => self.unlisted(path, &error.to_string()),
            Err(_) if is_gone(path) => {
                self.scan.files.insert(path.clone(), Contents::Gone);
            }
            Err(error) => {
                self.scan
                    .files
                    .insert(path.clone(), Contents::Unreadable(error.to_string()));
            }
        }
    }

    fn folder(&mut self, folder: &Path) {
        let real = match folder.canonicalize() {
            Ok(real) => real,
            Err(error) => return self.unlisted(folder, &error.to_string()),
        };
        if self.above.contains(&real) {
            return self.unlisted(
                folder,
                "a symlink that leads back to a folder above it; remove it",
            );
        }
        if self.above.len() > MAX_DEPTH {
            return self.unlisted(
                folder,
                &format!("more than {MAX_DEPTH} folders deep; name a deeper path in --manifests"),
            );
        }
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) => return self.unlisted(folder, &error.to_string()),
        };
        self.above.push(real);
        for name in names {
            self.entry(&folder.join(name));
        }
        self.above.pop();
    }

    fn entry(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.folder(path),
            Ok(_) if is_manifest(path) => self.file(path),
            Ok(_) => {}
            // Removed since it was listed, which is evidence. Everything else is not: a symlink to nowhere, a folder that may
            // be listed and not entered, a disk that does not answer.
            Err(_) if is_absent(path) => {}
            // It may be a file that was read before, or, whatever its name, a folder of such files.
            Err(error) => self.unlisted(path, &format!("{error}; mend or remove it")),
        }
    }

    fn file(&mut self, path: &Path) {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(real) {
            return;
        }
        if self.scan.files.len() >= MAX_FILES {
            return self.unlisted(
                parent(path),
                &format!(
                    "more than {MAX_FILES} manifest files in all; name fewer paths in --manifests"
                ),
            );
        }
        let contents = match read(path, MAX_TOTAL_BYTES.saturating_sub(self.bytes)) {
            Ok(text) => {
                self.bytes += text.len() as u64;
                Contents::Text(text)
            }
            Err(why) => Contents::Unreadable(why),
        };
        self.scan.files.insert(path.to_owned(), contents);
    }

    fn unlisted(&mut self, folder: &Path, why: &str) {
        self.scan.unlisted.insert(folder.to_owned(), why.to_owned());
    }
}

/// What a folder holds, in order, without what is skipped.
fn names(folder: &Path) -> io::Result<BTreeSet<std::ffi::OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    names
        .filter(|name| {
            name.as_ref()
                .map_or(true, |name| !name.as_encoded_bytes().starts_with(b"."))
        })
        .collect()
}

/// Whether the name is gone from a folder that is there. A symlink to nowhere is still a name.
fn is_gone(path: &Path) -> bool {
    is_absent(path) && fs::metadata(parent(path)).is_ok_and(|metadata| metadata.is_dir())
}

fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The folder that `path` is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read(path: &Path, left: u64) -> Result<Zeroizing<String>, String> {
    // Before it is opened: a named pipe would wait for its writer for ever.
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err(
            "not a regular file; remove it, or give it another ending than .yaml and .yml"
                .to_owned(),
        );
    }
    let limit = left.min(MAX_FILE_BYTES);
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let room = usize::try_from(metadata.len().min(limit)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let file = File::open(path).map_err(|error| error.to_string())?;
    // One byte more than the limit tells a file of that size from a longer one, whatever its metadata said.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(if limit == MAX_FILE_BYTES {
            format!("larger than {MAX_FILE_BYTES} bytes; split it")
        } else {
            format!(
                "all manifests together are larger than {MAX_TOTAL_BYTES} bytes; name fewer paths in --manifests"
            )
        });
    }
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        drop(Zeroizing::new(error.into_bytes()));
        format!("not UTF-8 text at byte {at}; save it as UTF-8")
    })?;
    Ok(Zeroizing::new(text))
}

#[cfg(test)]
mod tests;
