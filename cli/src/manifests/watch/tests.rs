//! The thread on a real folder. Waits are for events, with a limit.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::files::Contents;
use super::*;

/// A change is seen within a second; a machine that also compiles may need more.
const LIMIT: Duration = Duration::from_secs(10);

struct Watched {
    folder: TempDir,
    changes: mpsc::Receiver<Change>,
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\n")
}

fn names(change: &Change) -> Vec<String> {
    change
        .objects
        .keys()
        .map(|object| object.name.to_string())
        .collect()
}

fn start(prepare: impl FnOnce(&Path)) -> (Watched, Vec<String>) {
    let folder = TempDir::new().unwrap();
    prepare(folder.path());
    let roots = Roots::new(vec![folder.path().to_owned()]).unwrap();
    let (first, changes) = watch(roots).unwrap();
    (Watched { folder, changes }, names(&first))
}

impl Watched {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn next(&mut self) -> Vec<String> {
        names(
            &timeout(LIMIT, self.changes.recv())
                .await
                .expect("no change")
                .expect("the thread ended"),
        )
    }
}

#[tokio::test]
async fn writes_renames_and_deletions_are_seen() {
    let (mut watched, first) =
        start(|folder| fs::write(folder.join("a.yaml"), service("a")).unwrap());
    assert_eq!(first, ["a"]);
    fs::write(watched.path("b.yaml"), service("b")).unwrap();
    assert_eq!(watched.next().await, ["a", "b"]);
    // Again and again: a watch on the file itself would be deaf after the first.
    for name in ["c", "d", "e"] {
        fs::write(watched.path(".new"), service(name)).unwrap();
        fs::rename(watched.path(".new"), watched.path("b.yaml")).unwrap();
        assert_eq!(watched.next().await, ["a", name]);
    }
    fs::remove_file(watched.path("a.yaml")).unwrap();
    assert_eq!(watched.next().await, ["e"]);
}

#[tokio::test]
async fn a_target_outside_the_folder_is_seen() {
    let outside = TempDir::new().unwrap();
    let target = outside.path().join("target");
    fs::write(&target, service("a")).unwrap();
    let (mut watched, first) = start(|folder| symlink(&target, folder.join("a.yaml")).unwrap());
    assert_eq!(first, ["a"]);
    fs::write(&target, service("b")).unwrap();
    assert_eq!(watched.next().await, ["b"]);
}

#[tokio::test]
async fn a_swapped_mount_is_seen() {
    let (mut watched, first) = start(|folder| {
        for (data, name) in [("..1", "a"), ("..2", "b")] {
            fs::create_dir(folder.join(data)).unwrap();
            fs::write(folder.join(data).join("x.yaml"), service(name)).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/x.yaml", folder.join("x.yaml")).unwrap();
    });
    assert_eq!(first, ["a"]);
    symlink("..2", watched.path("..data_tmp")).unwrap();
    fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
    assert_eq!(watched.next().await, ["b"]);
}

#[tokio::test]
async fn an_emptied_file_withdraws_nothing() {
    let (mut watched, first) =
        start(|folder| fs::write(folder.join("a.yaml"), service("a")).unwrap());
    assert_eq!(first, ["a"]);
    // `kubectl create secret ... > a.yaml` empties it a second before it writes.
    fs::write(watched.path("a.yaml"), "").unwrap();
    assert_eq!(watched.next().await, ["a"]);
    fs::write(watched.path("a.yaml"), service("b")).unwrap();
    assert_eq!(watched.next().await, ["b"]);
}

/// Whether a change of `name` in the folder of a file of the command line wakes the reader at once.
#[track_caller]
fn check_wakes(name: &str, change: impl FnOnce(&Path), expected: bool) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("routes");
    fs::write(&file, service("a")).unwrap();
    fs::create_dir_all(folder.path().join("below/deep")).unwrap();
    let path = folder.path().join(name);
    fs::write(folder.path().join("a.log"), "").unwrap();
    let (wake, woken) = sync_channel(1);
    let _watcher = system_watcher(&Roots::new(vec![file]).unwrap(), wake).unwrap();
    change(&path);
    assert_eq!(woken.recv_timeout(RESCAN).is_ok(), expected, "{name}");
}

#[test]
fn only_what_may_change_a_manifest_wakes() {
    let write = |path: &Path| fs::write(path, "1").unwrap();
    check_wakes("routes", write, true);
    check_wakes("b.yaml", write, true);
    check_wakes("sub", |path| fs::create_dir(path).unwrap(), true);
    check_wakes("..data", |path| symlink("..1", path).unwrap(), true);
    check_wakes("a.log", write, false);
    check_wakes("new.log", write, false);
    check_wakes("below/b.yaml", write, false);
    check_wakes("below/deep/b.yaml", write, false);
}

#[test]
fn looks_keep_their_distance_however_often_they_are_woken() {
    let (wake, woken) = sync_channel(1);
    let begin = std::time::SystemTime::now();
    for _ in 0..3 {
        wake.try_send(()).unwrap();
        wait(&woken);
    }
    assert!(begin.elapsed().unwrap() >= PAUSE * 3);
}

fn look(text: &str) -> Scan {
    let contents = Contents::Text(text.to_owned().into());
    Scan {
        files: [("a.yaml".into(), contents)].into(),
        ..Scan::default()
    }
}

#[track_caller]
fn check_settled(looks: &[&str], expected: &str) {
    let mut looks = looks.iter().map(|text| look(text));
    let first = looks.next().unwrap();
    let taken = settled(first, || looks.next().expect("one look less"));
    assert_eq!(taken.digest(), look(expected).digest());
}

#[test]
fn a_file_that_is_being_written_is_not_taken_half() {
    check_settled(&["a", "a"], "a");
    check_settled(&["", "a", "ab", "ab"], "ab");
}

#[test]
fn a_file_that_never_settles_does_not_hold_back_the_others() {
    let looks: Vec<_> = (0..=MAX_LOOKS).map(|count| count.to_string()).collect();
    let looks: Vec<_> = looks.iter().map(String::as_str).collect();
    check_settled(&looks, &MAX_LOOKS.to_string());
}

#[tokio::test]
async fn reading_is_no_change() {
    let (mut watched, _) = start(|folder| fs::write(folder.join("a.yaml"), service("a")).unwrap());
    for _ in 0..20 {
        fs::read(watched.path("a.yaml")).unwrap();
    }
    assert!(
        timeout(RESCAN + SETTLE * 4, watched.changes.recv())
            .await
            .is_err()
    );
}
