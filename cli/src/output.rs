//! What `ws-ingress` prints for people and programs beside the log: contract lines on stdout, findings on stderr.
//!
//! One line a call, written whole and at once, so that who waits for a line gets it. A reader that has gone away is no reason to
//! stop serving: write errors are ignored. A control character in a line, such as the end of a line in a file's name, is replaced.

use std::io::{self, Write};

use crate::quoting::printable;

/// A line that other programs read, such as `listening https=...`.
pub fn announce(line: &str) {
    write_line(io::stdout().lock(), line);
}

/// A line for the person who runs it: a finding, an error.
pub fn report(line: &str) {
    write_line(io::stderr().lock(), line);
}

fn write_line(mut stream: impl Write, line: &str) {
    let _reader_gone = stream
        .write_all(format!("{}\n", printable(line)).as_bytes())
        .and_then(|()| stream.flush());
}
