//! Any bytes at the begin of a connection: a header is found, refused or waited for, and never read past its end.
//!
//! The file is the dataplane's own, so that the fuzzer needs none of what the dataplane needs.
#![no_main]

#[path = "../../src/proxy_protocol/header.rs"]
mod header;

use header::{MAX_V1_BYTES, MAX_V2_BYTES, Parsed, encode, parse};
use libfuzzer_sys::fuzz_target;
use route_table::ProxyProtocol;

fuzz_target!(|data: &[u8]| {
    let mut taken = 0;
    let found = loop {
        match parse(&data[..taken]) {
            Err(_) => break None,
            Ok(Parsed::Whole(ends)) => {
                for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
                    let written = ends.map(|ends| encode(version, ends));
                    let read = written.map(|written| parse(&written));
                    assert_eq!(read, ends.map(|ends| Ok(Parsed::Whole(Some(ends)))));
                }
                break Some(taken);
            }
            Ok(Parsed::More(more)) => {
                assert!(more > 0);
                taken += more;
                assert!(taken <= MAX_V1_BYTES.max(MAX_V2_BYTES));
                if taken > data.len() {
                    return;
                }
            }
        }
    };
    // However the bytes are cut, no shorter part of a header is a whole one or a wrong one.
    for cut in 0..found.unwrap_or(0) {
        match parse(&data[..cut]) {
            Ok(Parsed::More(more)) => assert!(found.is_some_and(|end| cut + more <= end)),
            other => panic!("{other:?} after {cut} bytes of {found:?}"),
        }
    }
});
