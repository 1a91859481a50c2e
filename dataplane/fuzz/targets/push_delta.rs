//! Any sequence of updates: each is applied whole or changes nothing, and what is held has the version that it says.
//!
//! The input is length-delimited `Update` messages. A wrong base or version is set right once, or nearly every input would end there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use push::{Greeting, Held, Progress, Refused, wire};
use route_table::RouteTable;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let mut held = Held::default();
    let mut table = RouteTable::empty();
    while let Ok(mut update) = wire::Update::decode_length_delimited(&mut rest) {
        if update.base.is_some() {
            update.base = Some(held.version().to_bytes());
        }
        if update.version.len() != 32 {
            update.version = vec![0; 32].into();
        }
        let mut outcome = receive(&mut held, update.clone());
        if let Err(Refused::Version { computed, .. }) = outcome {
            update.version = computed.to_bytes();
            outcome = receive(&mut held, update);
        }
        if let Ok(Progress::Applied(applied)) = outcome {
            assert_eq!(applied.version, held.version());
            table = RouteTable::build(held.resources(), &table).0;
        }
        if rest.is_empty() {
            break;
        }
    }
    let greeting = Greeting::read(held.hello("pod", "build")).expect("its own Hello");
    assert_eq!(greeting.held.version(), held.version());
});

fn receive(held: &mut Held, update: wire::Update) -> Result<Progress, Refused> {
    let before = (held.version(), held.resources().clone());
    let outcome = held.receive(update);
    if !matches!(outcome, Ok(Progress::Applied(_))) {
        assert_eq!((held.version(), held.resources().clone()), before);
    }
    outcome
}
