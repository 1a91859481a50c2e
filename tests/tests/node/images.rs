//! What the images hold, as their archives have it: one static program, the list of authorities, no user that is root.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tests::process::target_folder;

/// Type of the program header that names a loader.
const PT_INTERP: usize = 3;

/// `tar` with these arguments.
fn tar(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").args(arguments).output();
    let output = output.expect("tar starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "tar {arguments:?}: {said}");
    output.stdout
}

/// A file in an archive.
fn member(archive: &str, name: &str) -> Vec<u8> {
    tar(&["--extract", "--to-stdout", "--file", archive, name])
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn an_image_holds_one_static_program_and_the_authorities() {
    for component in ["controller", "dataplane"] {
        let archive = target_folder().join(format!("images/{component}.tar"));
        let archive = archive.to_str().expect("UTF-8");
        let manifest = json(&member(archive, "manifest.json"));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let image = json(&member(archive, &text(&manifest[0]["Config"])));

        let config = &image["config"];
        assert_eq!(config["User"], "65532:65532");
        let program = format!("ws-ingress-{component}");
        assert_eq!(
            config["Entrypoint"],
            serde_json::json!([format!("/{program}")])
        );
        let labels = &config["Labels"];
        let label = |name: &str| text(&labels[format!("org.opencontainers.image.{name}")]);
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(label("licenses"), "Apache-2.0");
        assert_eq!(label("title"), format!("ws-ingress {component}"));
        for name in ["description", "revision"] {
            assert!(!label(name).is_empty(), "{name}");
        }

        let folder = tempfile::tempdir().expect("a temporary folder");
        let to = folder.path().to_str().expect("UTF-8");
        for layer in manifest[0]["Layers"].as_array().expect("layers") {
            let bytes = folder.path().join("layer");
            std::fs::write(&bytes, member(archive, &text(layer))).expect("a layer");
            let bytes = bytes.to_str().expect("UTF-8");
            tar(&["--extract", "--directory", to, "--file", bytes]);
            std::fs::remove_file(bytes).expect("it was written");
        }
        let mut files = files(folder.path().to_path_buf());
        files.sort();
        let names: Vec<_> = files
            .iter()
            .filter_map(|file| file.strip_prefix(folder.path()).ok()?.to_str())
            .collect();
        assert_eq!(names, ["etc/ssl/certs/ca-certificates.crt", &*program]);
        let bytes = std::fs::read(folder.path().join(&program)).expect("the program");
        assert!(is_static(&bytes), "{program} needs a loader");
    }
}

/// Whether a program of 64 bits, little-endian, names nobody who loads it (ELF: no program header `PT_INTERP`).
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        let bytes = elf[at..at + bytes].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    assert!(elf.starts_with(b"\x7fELF\x02\x01"), "no such program");
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    assert!(count > 0);
    (0..count).all(|index| number(headers + index * size, 4) != PT_INTERP)
}

/// All files below a folder.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(path)
            } else {
                vec![path]
            }
        })
        .collect()
}
