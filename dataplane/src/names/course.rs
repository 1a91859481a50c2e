//! What follows from one look-up of a name after another: which addresses hold, and when to ask again. Without waiting or asking itself.
//!
//! Each family goes its own way: what one failed to say takes nothing from the other, and gives nothing away either.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::dns::{Answer, Found};

/// Shortest time between two look-ups: a TTL of 0 means "for this transaction only" (RFC 1035 §3.2.1), and nobody needs more than one a
/// second.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Longest time: who set a day by mistake is not followed for a day.
const MAX_TTL: Duration = Duration::from_mins(5);
/// Until a name without addresses is looked up again: somebody is about to create it.
const NOTHING_TTL: Duration = Duration::from_secs(5);
/// Pauses after failures, doubled each time: name servers are back within seconds, or not soon (RFC 8767 §5 asks for 30 s at most).
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long an answer outlives its TTL while name servers fail. RFC 8767 §5 would allow days; after an hour without DNS the address
/// may well belong to somebody else.
const KEEP: Duration = Duration::from_hours(1);

/// One name's look-ups so far.
#[derive(Debug)]
pub(super) struct Course {
    families: [Family; 2],
    /// The pause after the next failure.
    retry: Duration,
}

/// What holds of one family.
#[derive(Debug, Default)]
struct Family {
    addresses: Vec<IpAddr>,
    /// How long they may be used while name servers fail.
    kept_until: Option<Instant>,
}

/// What to do after a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The addresses from now on.
    pub(super) known: Vec<IpAddr>,
    pub(super) pause: Duration,
    /// The `outcome` label of the metrics.
    pub(super) outcome: &'static str,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            families: Default::default(),
            retry: FIRST_RETRY,
        }
    }
}

impl Course {
    /// Takes what a look-up found, without the addresses that nothing may lead to: none left is still an answer.
    pub(super) fn step(&mut self, found: Found, now: Instant) -> Step {
        let (mut shortest, mut failed) = (None, false);
        for (family, answer) in self.families.iter_mut().zip(found) {
            match answer {
                Answer::Addresses { addresses, ttl } => {
                    let ttl = ttl.clamp(MIN_TTL, MAX_TTL);
                    shortest = Some(shortest.map_or(ttl, |other: Duration| other.min(ttl)));
                    *family = Family {
                        addresses,
                        kept_until: Some(now + ttl + KEEP),
                    };
                }
                Answer::Nothing => *family = Family::default(),
                Answer::Failed(_) => {
                    failed = true;
                    if family.kept_until.is_none_or(|until| now >= until) {
                        *family = Family::default();
                    }
                }
            }
        }
        let known = self.families.iter().flat_map(|family| &family.addresses);
        let known = known.copied().collect::<Vec<_>>();
        let pause = match (shortest, failed) {
            (Some(ttl), false) => ttl,
            (Some(ttl), true) => ttl.min(self.retry),
            (None, false) => NOTHING_TTL,
            (None, true) => self.retry,
        };
        self.retry = if failed {
            (self.retry * 2).min(LAST_RETRY)
        } else {
            FIRST_RETRY
        };
        let outcome = match (shortest, failed, known.is_empty()) {
            (Some(_), _, false) => "found",
            (Some(_), _, true) => "denied",
            (None, false, _) => "nothing",
            (None, true, false) => "failed_kept",
            (None, true, true) => "failed",
        };
        Step {
            known,
            pause,
            outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::dns::Failure;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

    fn one(address: IpAddr, ttl: Duration) -> Answer {
        let addresses = vec![address];
        Answer::Addresses { addresses, ttl }
    }

    fn found(ttl: Duration) -> Found {
        [one(V4, ttl), Answer::Nothing]
    }

    fn failed() -> Found {
        [failure(), failure()]
    }

    fn failure() -> Answer {
        Answer::Failed(Failure::Timeout)
    }

    fn nothing() -> Found {
        [Answer::Nothing, Answer::Nothing]
    }

    #[test]
    fn a_ttl_is_followed_between_a_second_and_five_minutes() {
        for (ttl, expected) in [(0, 1), (1, 1), (30, 30), (300, 300), (86_400, 300)] {
            let step = Course::default().step(found(Duration::from_secs(ttl)), Instant::now());
            assert_eq!(step.pause.as_secs(), expected, "{ttl}");
            assert_eq!((step.known, step.outcome), (vec![V4], "found"));
        }
    }

    #[test]
    fn a_failure_keeps_the_last_answer_for_an_hour_after_its_time() {
        let (mut course, begun) = (Course::default(), Instant::now());
        course.step(found(Duration::from_mins(1)), begun);
        let last = begun + Duration::from_mins(61);
        let kept = course.step(failed(), last.checked_sub(Duration::from_secs(1)).unwrap());
        assert_eq!((kept.known, kept.outcome), (vec![V4], "failed_kept"));
        let over = course.step(failed(), last);
        assert_eq!((over.known, over.outcome), (Vec::new(), "failed"));
    }

    #[test]
    fn failures_are_asked_again_ever_later_and_an_answer_begins_anew() {
        let (mut course, now) = (Course::default(), Instant::now());
        let mut pauses = || course.step(failed(), now).pause.as_secs();
        let seen = [
            pauses(),
            pauses(),
            pauses(),
            pauses(),
            pauses(),
            pauses(),
            pauses(),
        ];
        assert_eq!(seen, [1, 2, 4, 8, 16, 30, 30]);
        course.step(found(Duration::from_secs(30)), now);
        assert_eq!(course.step(failed(), now).pause, FIRST_RETRY);
    }

    #[test]
    fn no_such_name_withdraws_at_once_and_leaves_nothing_to_keep() {
        let (mut course, now) = (Course::default(), Instant::now());
        course.step(found(Duration::from_secs(30)), now);
        let gone = course.step(nothing(), now);
        assert_eq!((gone.known, gone.outcome), (Vec::new(), "nothing"));
        assert_eq!(course.step(failed(), now).outcome, "failed");
    }

    #[test]
    fn a_family_that_fails_keeps_its_own_and_is_asked_for_again_soon() {
        let (mut course, now) = (Course::default(), Instant::now());
        let long = Duration::from_mins(2);
        course.step([one(V4, long), one(V6, long)], now);
        let half = course.step([failure(), one(V6, long)], now);
        assert_eq!((half.known, half.outcome), (vec![V4, V6], "found"));
        assert_eq!(half.pause, FIRST_RETRY);
        // What is known of the other one follows its own evidence.
        let other = course.step([failure(), Answer::Nothing], now);
        assert_eq!((other.known, other.outcome), (vec![V4], "failed_kept"));
        let gone = course.step([Answer::Nothing, failure()], now);
        assert_eq!((gone.known, gone.outcome), (Vec::new(), "failed"));
    }

    #[test]
    fn addresses_that_nothing_may_lead_to_are_an_answer() {
        let addresses = Vec::new();
        let ttl = Duration::from_secs(9);
        let denied = [Answer::Addresses { addresses, ttl }, Answer::Nothing];
        let step = Course::default().step(denied, Instant::now());
        assert_eq!((step.known, step.outcome), (Vec::new(), "denied"));
        assert_eq!(step.pause, ttl);
    }
}
