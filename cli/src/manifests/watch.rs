//! Reads the manifests again whenever they may have changed.
//!
//! Contents decide. A file's time or size can stay the same through a change, a watch on a file is deaf after its first rename,
//! and a watch on a folder does not see what a symlink in it leads to, so everything is read every [`RESCAN`]. The system's
//! notices only make it sooner, and only those about names that can matter: a log that is written beside the manifests wakes
//! nobody. A change is taken when two looks in a row agree: a file that is being written in place is cut short for a moment, and
//! the documents of its first half may be valid.
//!
//! A thread, not a task: reading files blocks, on a slow disk for long.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, sleep};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, Watcher};
use tokio::sync::mpsc;

use super::files::{Roots, Scan};
use super::loaded::{Change, Loaded};

/// Time between two looks without a notice. Half of the second in which a change shall be seen.
const RESCAN: Duration = Duration::from_millis(500);
/// Least time between two looks, so that a folder that is written to all the time costs ten looks a second and not a core.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between the two looks that must agree: longer than an editor takes between emptying a file and writing it.
const SETTLE: Duration = Duration::from_millis(25);
/// After this many looks a file that changes all the time holds back the others no longer.
const MAX_LOOKS: usize = 8;
/// Changes that wait to be compiled. Each is the whole state, so one is enough, and the thread waits for it to be taken.
const WAITING_CHANGES: usize = 1;

/// Reads everything once, then watches until the receiver is dropped. The first change is what the files hold now; it is
/// returned rather than sent, so that it can be served before anything else begins.
pub(crate) fn watch(roots: Roots) -> std::io::Result<(Change, mpsc::Receiver<Change>)> {
    // Before the first look: what changes after it is noticed.
    let (wake, woken) = sync_channel(1);
    let watcher = system_watcher(&roots, wake);
    let mut loaded = Loaded::default();
    let scan = settled(roots.scan(), || roots.scan());
    let mut digest = scan.digest();
    let first = loaded.update(scan);

    let (sender, changes) = mpsc::channel(WAITING_CHANGES);
    thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || {
            let _watcher = watcher;
            while !sender.is_closed() {
                wait(&woken);
                let scan = roots.scan();
                if scan.digest() == digest {
                    continue;
                }
                let scan = settled(scan, || roots.scan());
                digest = scan.digest();
                if sender.blocking_send(loaded.update(scan)).is_err() {
                    return;
                }
            }
        })?;
    Ok((first, changes))
}

/// Looks again until two looks in a row agree.
fn settled(mut scan: Scan, mut look: impl FnMut() -> Scan) -> Scan {
    for _ in 0..MAX_LOOKS {
        sleep(SETTLE);
        let next = look();
        let same = next.digest() == scan.digest();
        scan = next;
        if same {
            break;
        }
    }
    scan
}

fn wait(woken: &Receiver<()>) {
    sleep(PAUSE);
    match woken.recv_timeout(RESCAN.saturating_sub(PAUSE)) {
        Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        // No watcher: only the rescan is left.
        Err(RecvTimeoutError::Disconnected) => sleep(RESCAN.saturating_sub(PAUSE)),
    }
}

/// `None` where the system has no notices to give (no inotify watches left, a file system without them).
fn system_watcher(roots: &Roots, wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let all = roots.clone();
    let matters = move |event: &notify::Event| {
        // One without paths says that others were lost.
        event.paths.is_empty()
            || event
                .paths
                .iter()
                .any(|path| may_change(event.kind, path, &all))
    };
    let notice = move |event: notify::Result<notify::Event>| {
        if event.as_ref().is_ok_and(&matters) {
            // Full means that it will look anyway.
            let _full = wake.try_send(());
        }
    };
    let watched =
        RecommendedWatcher::new(notice, notify::Config::default()).and_then(|mut watcher| {
            for (folder, depth) in roots.folders() {
                watcher.watch(folder, depth)?;
            }
            Ok(watcher)
        });
    watched
        .inspect_err(|error| {
            tracing::info!(%error, "no notices from the file system; changes are seen within half a second");
        })
        .ok()
}

/// Whether a scan may now find something else. Our own reading is an event too; to react to it would never end.
fn may_change(kind: EventKind, path: &Path, roots: &Roots) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Data(_)) => roots.may_read(path),
        EventKind::Access(_) => false,
        // A folder counts, and a symlink, such as the `..data` of a mounted `ConfigMap`; what is gone may have been one.
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => {
            roots.may_read(path)
                || !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
        }
    }
}

#[cfg(test)]
mod tests;
