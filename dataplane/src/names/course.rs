//! What follows from one look-up of a name after another: which addresses hold, and when to ask again. Without waiting or asking itself.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::dns::Found;

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
    /// How long the last answer may be used while name servers fail.
    kept_until: Option<Instant>,
    /// The pause after the next failure.
    retry: Duration,
}

/// What to do after a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The addresses from now on; nothing if those that were known stay.
    pub(super) known: Option<Vec<IpAddr>>,
    pub(super) pause: Duration,
    /// The `outcome` label of the metrics.
    pub(super) outcome: &'static str,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            kept_until: None,
            retry: FIRST_RETRY,
        }
    }
}

impl Course {
    /// Takes what a look-up found, without the addresses that nothing may lead to: none left is still an answer.
    pub(super) fn step(&mut self, found: Found, now: Instant) -> Step {
        match found {
            Found::Addresses { addresses, ttl } => {
                let pause = ttl.clamp(MIN_TTL, MAX_TTL);
                self.retry = FIRST_RETRY;
                self.kept_until = Some(now + pause + KEEP);
                let outcome = if addresses.is_empty() {
                    "denied"
                } else {
                    "found"
                };
                Step {
                    known: Some(addresses),
                    pause,
                    outcome,
                }
            }
            Found::Nothing => {
                *self = Self::default();
                Step {
                    known: Some(Vec::new()),
                    pause: NOTHING_TTL,
                    outcome: "nothing",
                }
            }
            Found::Failed(_) => {
                let pause = self.retry;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                let keeps = self.kept_until.is_some_and(|until| now < until);
                Step {
                    known: (!keeps).then(Vec::new),
                    pause,
                    outcome: if keeps { "failed_kept" } else { "failed" },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::dns::Failure;

    fn addresses() -> Vec<IpAddr> {
        vec![[10, 0, 0, 1].into()]
    }

    fn found(ttl: Duration) -> Found {
        let addresses = addresses();
        Found::Addresses { addresses, ttl }
    }

    fn failed() -> Found {
        Found::Failed(Failure::Timeout)
    }

    #[test]
    fn a_ttl_is_followed_between_a_second_and_five_minutes() {
        for (ttl, expected) in [(0, 1), (1, 1), (30, 30), (300, 300), (86_400, 300)] {
            let step = Course::default().step(found(Duration::from_secs(ttl)), Instant::now());
            assert_eq!(step.pause.as_secs(), expected, "{ttl}");
            assert_eq!(step.known, Some(addresses()));
        }
    }

    #[test]
    fn a_failure_keeps_the_last_answer_for_an_hour_after_its_time() {
        let (mut course, begun) = (Course::default(), Instant::now());
        course.step(found(Duration::from_mins(1)), begun);
        let last = begun + Duration::from_mins(61);
        let kept = course.step(failed(), last.checked_sub(Duration::from_secs(1)).unwrap());
        assert_eq!((kept.known, kept.outcome), (None, "failed_kept"));
        let over = course.step(failed(), last);
        assert_eq!((over.known, over.outcome), (Some(Vec::new()), "failed"));
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
        let gone = course.step(Found::Nothing, now);
        assert_eq!((gone.known, gone.outcome), (Some(Vec::new()), "nothing"));
        assert_eq!(course.step(failed(), now).outcome, "failed");
    }
}
