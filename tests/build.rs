//! Compiles the protocol of the push once more, for tests that play one side of it: from the text that both sides are made
//! from, and without a line of theirs.

use std::error::Error;

const FOLDER: &str = "../dataplane/push/proto";

fn main() -> Result<(), Box<dyn Error>> {
    let file = format!("{FOLDER}/push.proto");
    println!("cargo::rerun-if-changed={file}");
    let files = protox::compile([file], [FOLDER])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
