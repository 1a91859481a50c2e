//! Manifest files -> objects, again and again while the files change.
//!
//! `files` finds and reads them, `documents` splits a file, `node` parses one document and remembers lines, `decode` makes a
//! typed object of it or says what is wrong with which field (`problem`, `name`), `loaded` remembers what every file last held, and `watch` runs
//! all that whenever something changed.
//!
//! **Absence of evidence keeps; evidence withdraws.** What keeps is reported until it is mended or there is evidence:
//!
//! | what is found | what becomes of the objects that were read before |
//! |---|---|
//! | a file is gone from a folder that could be listed | withdrawn |
//! | a file of the command line is gone from a folder that is there | withdrawn, and told |
//! | a file holds other documents than before, all of them valid | those that it no longer holds are withdrawn |
//! | a file holds nothing, or comments only | stay: whoever writes it anew empties it first |
//! | a document that does not parse, or has a wrong field | all of its file stay |
//! | a file that cannot be read | stay |
//! | a folder that cannot be listed; anything that cannot be looked at, such as a symlink to nowhere | it and all below it stay |
//! | a folder of the command line is gone (a mount, a folder in the middle of being replaced) | all below it stay |

mod decode;
mod documents;
mod files;
mod loaded;
mod name;
mod node;
mod problem;
mod watch;

pub(crate) use files::Roots;
pub(crate) use loaded::{Change, Notice};
pub(crate) use watch::watch;
