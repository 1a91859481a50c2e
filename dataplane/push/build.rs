//! Compiles `proto/push.proto` without `protoc`: protox parses it, tonic-prost-build writes the Rust.

use std::error::Error;

/// Messages whose bytes are, or hold, a private key, and those that are too long to print. `redact.rs` prints them.
const HAND_WRITTEN_DEBUG: [&str; 3] = [
    ".ws_ingress.push.v1.Serve",
    ".ws_ingress.push.v1.Resource",
    ".ws_ingress.push.v1.Update",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/push.proto");
    let files = protox::compile(["proto/push.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Shared slices instead of copies: no second copy of a key that nobody wipes.
        .bytes(".")
        .skip_debug(HAND_WRITTEN_DEBUG)
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
