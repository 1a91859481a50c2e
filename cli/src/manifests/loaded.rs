//! What every file last held, and what is wrong with it now.
//!
//! A file counts as a whole: if one of its documents is wrong, or it cannot be read, the objects that it held before stay, all of
//! them. The same holds for a file that became empty: a tool that writes it anew (`kubectl ... > x.yaml`) empties it first, up to
//! a second before. What is wrong is told once, when it appears or changes, and its end is told too. An object that two files define is
//! that of the first file in the order of paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use controller::store::{Object, ObjectRef};

use super::decode::{Decoded, decode};
use super::documents::split;
use super::files::{Contents, Scan};

/// The last good state of every file.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    files: BTreeMap<PathBuf, LoadedFile>,
    /// What was told, by file or folder.
    told: BTreeMap<PathBuf, BTreeSet<String>>,
}

/// What one look at the disk changed.
#[derive(Debug)]
pub(crate) struct Change {
    /// Everything that the files hold now.
    pub(crate) objects: BTreeMap<ObjectRef, Object>,
    /// How many files could be read.
    pub(crate) files: usize,
    pub(crate) notices: Vec<Notice>,
}

/// Something that the person who writes the files should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A file or folder is wrong; what it held before stays.
    Wrong { path: PathBuf, what: String },
    /// Nothing is wrong with it any more.
    Mended { path: PathBuf },
    /// Objects of kinds that are not read here.
    Ignored { path: PathBuf, kinds: String },
}

#[derive(Debug, Default)]
struct LoadedFile {
    /// Of the text that was parsed last; `None` when it could not be read.
    parsed: Option<u64>,
    /// With the number of the document that each came from.
    objects: Vec<(usize, Object)>,
    wrong: Vec<String>,
    ignored: BTreeSet<String>,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { path, what } => write!(f, "manifest: {}: {what}", path.display()),
            Self::Mended { path } => write!(f, "manifest mended: {}", path.display()),
            Self::Ignored { path, kinds } => {
                write!(f, "manifest: {}: ignored: {kinds}", path.display())
            }
        }
    }
}

impl Loaded {
    pub(super) fn update(&mut self, scan: Scan) -> Change {
        self.files
            .retain(|path, _| scan.files.contains_key(path) || !scan.proves_absence_of(path));
        let mut notices = Vec::new();
        let mut files = 0;
        for (path, contents) in scan.files {
            files += usize::from(matches!(contents, Contents::Text(_)));
            let file = self.files.entry(path.clone()).or_default();
            let ignored = file.ignored.clone();
            file.read(contents);
            if file.ignored != ignored && !file.ignored.is_empty() {
                let kinds = file
                    .ignored
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ");
                notices.push(Notice::Ignored { path, kinds });
            }
        }
        let (objects, mut wrong) = self.objects();
        for (path, file) in &self.files {
            wrong
                .entry(path.clone())
                .or_default()
                .extend(file.wrong.iter().cloned());
        }
        for (folder, why) in scan.unlisted {
            let why = format!("{why}; what was read here before stays");
            wrong.entry(folder).or_default().insert(why);
        }
        notices.extend(self.tell(wrong));
        Change {
            objects,
            files,
            notices,
        }
    }

    /// Every object once, and who defines one that another file already has.
    fn objects(
        &self,
    ) -> (
        BTreeMap<ObjectRef, Object>,
        BTreeMap<PathBuf, BTreeSet<String>>,
    ) {
        let mut objects = BTreeMap::new();
        let mut owners: BTreeMap<ObjectRef, &Path> = BTreeMap::new();
        let mut twice: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for (path, file) in &self.files {
            for (document, object) in &file.objects {
                let name = object.reference();
                if let Some(owner) = owners.get(&name) {
                    let what = format!(
                        "document {document}: {name} is already defined in {}, which counts; remove one of them",
                        owner.display()
                    );
                    twice.entry(path.clone()).or_default().insert(what);
                } else {
                    owners.insert(name.clone(), path);
                    objects.insert(name, object.clone());
                }
            }
        }
        (objects, twice)
    }

    /// What was not told yet.
    fn tell(&mut self, mut wrong: BTreeMap<PathBuf, BTreeSet<String>>) -> Vec<Notice> {
        wrong.retain(|_, whats| !whats.is_empty());
        let told = std::mem::replace(&mut self.told, wrong);
        let fresh = self.told.iter().flat_map(|(path, whats)| {
            let before = told.get(path);
            whats
                .iter()
                .filter(move |what| before.is_none_or(|before| !before.contains(*what)))
                .map(|what| Notice::Wrong {
                    path: path.clone(),
                    what: what.clone(),
                })
        });
        let mended = told.keys().filter(|path| !self.told.contains_key(*path));
        fresh
            .chain(mended.map(|path| Notice::Mended { path: path.clone() }))
            .collect()
    }
}

impl LoadedFile {
    fn read(&mut self, contents: Contents) {
        match contents {
            Contents::Text(text) => self.parse(&text),
            Contents::Unreadable(why) => {
                self.wrong = vec![why];
                self.parsed = None;
            }
            Contents::Gone => {
                *self = Self::default();
                self.wrong = vec!["no longer there; what it held is withdrawn".to_owned()];
            }
        }
    }

    fn parse(&mut self, text: &str) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let digest = Some(hasher.finish());
        // One changed file must not cost the parsing of all.
        if self.parsed == digest {
            return;
        }
        self.parsed = digest;
        if !self.objects.is_empty() && split(text).is_empty() {
            let what = "is empty; what it held stays; delete the file to withdraw it";
            self.wrong = vec![what.to_owned()];
            return;
        }
        match decode(text) {
            Ok(Decoded { objects, ignored }) => {
                self.objects = objects;
                self.ignored = ignored;
                self.wrong = Vec::new();
            }
            Err(problems) => self.wrong = problems.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
