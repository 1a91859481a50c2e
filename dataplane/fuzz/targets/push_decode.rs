//! Any bytes as the body of one resource: taken or rejected alone, and the table can be built from it.
//!
//! The first byte chooses the kind and the features that it requires; the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push::{Held, Progress, Refused, wire};
use route_table::RouteTable;

const KEYS: [&str; 4] = [
    "route/default/chat",
    "backend/default/chat/80",
    "certificate/default/tls",
    "unknown/default/x",
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let key = KEYS[usize::from(choice & 3)];
    let requires = [(4, "route/new"), (8, "host/new")];
    let requires = requires.iter().filter(|(bit, _)| choice & bit != 0);
    let resource = wire::Resource {
        key: key.to_owned(),
        requires: requires.map(|(_, feature)| (*feature).to_owned()).collect(),
        body: body.to_vec().into(),
    };
    let mut update = wire::Update {
        version: vec![0; 32].into(),
        upserts: vec![resource],
        ..wire::Update::default()
    };
    let mut held = Held::default();
    match held.receive(update.clone()) {
        Err(Refused::Version { computed, .. }) => update.version = computed.to_bytes(),
        Err(Refused::BodyLength { .. }) => return,
        other => panic!("{other:?}"),
    }
    assert!(matches!(held.receive(update), Ok(Progress::Applied(_))));
    let _ = RouteTable::build(held.resources(), &RouteTable::empty());
});
