//! Manifest files -> objects, again and again while the files change.
//!
//! `files` finds and reads them, `documents` splits a file, `node` parses one document and remembers lines, `decode` makes a
//! typed object of it or says what is wrong with which field (`problem`), `loaded` remembers what every file last held, and `watch` runs
//! all that whenever something changed.
//!
//! **Absence of evidence keeps; evidence withdraws.** A file that is gone from a folder that could be listed is evidence: its
//! objects are withdrawn, and so are those of a file named on the command line that is no longer there. Everything else keeps
//! what the file last held, and is reported: a file that cannot be read, a document that does not parse, a folder that cannot
//! be listed, a folder of the command line that is missing (a mount that has gone, a folder in the middle of being replaced).

mod decode;
mod documents;
mod files;
mod loaded;
mod node;
mod problem;
mod watch;

pub(crate) use files::Roots;
pub(crate) use loaded::{Change, Notice};
pub(crate) use watch::watch;
