//! The closed form of a route that cannot be served: its requests are answered 503.
//!
//! Without it they would fall to a less specific route, perhaps that of another namespace on a wildcard, with the cookies that they
//! carry: a mistake in a rule must not hand them over. It keeps what could be read whole: hostnames, and matches with all of their conditions. A match with
//! a mistake closes nothing, since nobody knows what it meant and a part of it could take what is another route's.

use std::sync::Arc;
use std::time::Duration;

use route_table::{NonUpgrade, OriginPolicy, Rule, Timeouts};

use crate::compile::draft::Draft;

/// Never waited for, since there is nothing to connect to; but the table refuses zero.
const NEVER_USED: Duration = Duration::from_secs(1);

/// The rules of a broken route, without anything that they lead to. Nothing in them can be refused by a dataplane, which would go on
/// with the form before the mistake.
pub(super) fn rules(draft: &Draft) -> Vec<Rule> {
    let rules = draft.rules.iter().enumerate();
    let rules = rules.filter(|(_, rule)| !rule.matches.is_empty());
    rules
        .map(|(index, rule)| Rule {
            name: index.to_string().into(),
            matches: rule.matches.clone(),
            // So that ordinary requests get the same answer.
            non_upgrade: NonUpgrade::Forward,
            origins: OriginPolicy::default(),
            filters: Arc::default(),
            backends: Vec::new(),
            timeouts: Timeouts {
                connect: NEVER_USED,
                handshake: NEVER_USED,
                read: NEVER_USED,
                send: NEVER_USED,
            },
        })
        .collect()
}
