//! On a real folder: which names count, which links are followed, what is reported.

use std::os::unix::fs::{FileTypeExt, symlink};

use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Found files and unlisted folders, relative to `folder`, as `name=text`, `name!why` and `name/!why`.
fn found(folder: &Path, roots: &Roots) -> Vec<String> {
    let name = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
    let scan = roots.scan();
    let files = scan.files.iter().map(|(path, contents)| match contents {
        Contents::Text(text) => format!("{}={}", name(path), text.as_str()),
        Contents::Unreadable(why) => format!("{}!{why}", name(path)),
        Contents::Gone => format!("{} gone", name(path)),
    });
    files
        .chain(
            scan.unlisted
                .iter()
                .map(|(path, why)| format!("{}/!{why}", name(path))),
        )
        .collect()
}

fn roots(paths: &[&Path]) -> Roots {
    Roots::new(paths.iter().map(|path| path.to_path_buf()).collect()).unwrap()
}

#[track_caller]
fn check(folder: &TempDir, expected: &[&str]) {
    assert_eq!(found(folder.path(), &roots(&[folder.path()])), expected);
}

#[test]
fn yaml_files_count_at_any_depth() {
    let files = [
        ("b.yaml", "1"),
        ("a.yml", "2"),
        ("c.json", "3"),
        ("yaml", "4"),
        ("sub/deep/d.yaml", "5"),
        (".hidden.yaml", "6"),
        (".git/e.yaml", "7"),
    ];
    check(
        &folder(&files),
        &["a.yml=2", "b.yaml=1", "sub/deep/d.yaml=5"],
    );
}

#[test]
fn a_mounted_secret_counts_once_under_its_visible_name() {
    let mount = folder(&[("..2026_1/tls.yaml", "old"), ("..2026_2/tls.yaml", "new")]);
    symlink("..2026_1", mount.path().join("..data")).unwrap();
    symlink("..data/tls.yaml", mount.path().join("tls.yaml")).unwrap();
    check(&mount, &["tls.yaml=old"]);
    symlink("..2026_2", mount.path().join("..data_tmp")).unwrap();
    fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    check(&mount, &["tls.yaml=new"]);
}

#[test]
fn loops_end_and_are_reported() {
    let looped = folder(&[("sub/a.yaml", "1")]);
    symlink("..", looped.path().join("sub/up")).unwrap();
    check(
        &looped,
        &[
            "sub/a.yaml=1",
            "sub/up/!a symlink that leads back to a folder above it; remove it",
        ],
    );
}

#[test]
fn a_file_reached_twice_counts_once() {
    let twice = folder(&[("a.yaml", "1")]);
    symlink("a.yaml", twice.path().join("b.yaml")).unwrap();
    let file = twice.path().join("a.yaml");
    assert_eq!(
        found(twice.path(), &roots(&[&file, twice.path()])),
        ["a.yaml=1"]
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let odd = folder(&[("a.yaml", "1")]);
    symlink("nowhere", odd.path().join("b.yaml")).unwrap();
    fs::write(odd.path().join("c.yaml"), b"a: \xff").unwrap();
    make_pipe(&odd.path().join("d.yaml"));
    fs::write(
        odd.path().join("e.yaml"),
        vec![b'#'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1],
    )
    .unwrap();
    check(
        &odd,
        &[
            "a.yaml=1",
            "c.yaml!not UTF-8 text at byte 3; save it as UTF-8",
            "d.yaml!not a regular file; remove it, or give it another ending than .yaml and .yml",
            "e.yaml!larger than 8388608 bytes; split it",
            "b.yaml/!No such file or directory (os error 2); mend or remove it",
        ],
    );
}

#[test]
fn a_symlink_to_nowhere_may_be_a_file_or_a_folder_and_is_not_known() {
    let odd = folder(&[("a.yaml", "1")]);
    symlink("nowhere", odd.path().join("gone")).unwrap();
    symlink("loop.yaml", odd.path().join("loop.yaml")).unwrap();
    check(
        &odd,
        &[
            "a.yaml=1",
            "gone/!No such file or directory (os error 2); mend or remove it",
            "loop.yaml/!Too many levels of symbolic links (os error 40); mend or remove it",
        ],
    );
    let scan = roots(&[odd.path()]).scan();
    for name in ["gone/b.yaml", "loop.yaml", "loop.yaml/b.yaml"] {
        assert!(!scan.proves_absence_of(&odd.path().join(name)), "{name}");
    }
    assert!(scan.proves_absence_of(&odd.path().join("b.yaml")));
}

/// As a folder without permission to enter it, which does not stop root: not even `lstat` works on what it lists.
#[test]
fn what_is_listed_but_cannot_be_looked_at_is_not_known() {
    let odd = TempDir::new().unwrap();
    let deep = |levels: usize| odd.path().join(vec!["d"; levels].join("/"));
    fs::create_dir_all(deep(MAX_DEPTH).join("sub")).unwrap();
    fs::write(deep(MAX_DEPTH).join("a.yaml"), "1").unwrap();
    let long = "d".repeat(255);
    // From the inside, so that each rename itself has a short path. The whole is longer than PATH_MAX.
    for level in (1..=MAX_DEPTH).rev() {
        fs::rename(deep(level), deep(level - 1).join(&long)).unwrap();
    }
    let scan = roots(&[odd.path()]).scan();
    assert!(scan.files.is_empty());
    let unlisted: Vec<_> = scan.unlisted.iter().collect();
    assert_eq!(unlisted.len(), 1, "{unlisted:?}");
    assert_eq!(
        unlisted[0].1,
        "File name too long (os error 36); mend or remove it"
    );
}

/// There is no named pipe in std; the tool is in every base system.
fn make_pipe(path: &Path) {
    assert!(
        std::process::Command::new("mkfifo")
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
    assert!(fs::metadata(path).unwrap().file_type().is_fifo());
}

#[test]
fn a_missing_path_is_an_error_at_the_start() {
    let folder = folder(&[]);
    let path = folder.path().join("mainfests");
    let error = Roots::new(vec![path.clone()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read manifests from {}", path.display())
    );
}

#[test]
fn later_a_missing_file_is_gone_and_a_missing_folder_is_not_known() {
    let folder = folder(&[("a.yaml", "1"), ("sub/b.yaml", "2")]);
    let (file, sub) = (folder.path().join("a.yaml"), folder.path().join("sub"));
    let roots = roots(&[&file, &sub]);
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(&sub).unwrap();
    assert_eq!(
        found(folder.path(), &roots),
        ["a.yaml gone", "sub/!No such file or directory (os error 2)"]
    );
    assert!(!roots.scan().proves_absence_of(&sub.join("b.yaml")));
    assert!(
        roots
            .scan()
            .proves_absence_of(&folder.path().join("submarine/b.yaml"))
    );
}

#[test]
fn a_tree_that_is_too_deep_is_reported() {
    let deep = "d/".repeat(MAX_DEPTH + 2);
    let folder = folder(&[(&format!("{deep}a.yaml"), "1")]);
    let found = found(folder.path(), &roots(&[folder.path()]));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with("more than 16 folders deep; name a deeper path in --manifests"),
        "{found:?}"
    );
}
