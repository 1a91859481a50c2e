//! How many clients are connected, and what happens when there is room for few more.
//!
//! In: each connection, from accept until it, and any relay that grew out of it, has ended. Out: whether more are accepted, and whether
//! the requests of a connection are turned away. From 95 % of the limit on, requests of new connections are answered 503: who comes then
//! is told to come again, where a connection that nobody accepts would only be waited for. At the limit nothing is accepted and readiness
//! is off. Both last until 90 % are left, so that a pod at its limit does not change its mind with each socket. Connections that were
//! there before are served on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::seldom::Seldom;

/// At most one line about the limit in this time: clients can reach it again and again.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// How full it is. It goes up with each mark that is reached, and back to `Roomy` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Roomy,
    /// New connections are turned away.
    Crowded,
    /// Nothing is accepted.
    Full,
}

/// Numbers of open connections at which the level changes.
#[derive(Debug, Clone, Copy)]
struct Marks {
    roomy: usize,
    crowded: usize,
    full: usize,
}

impl Marks {
    /// 90 %, 95 % and all of `limit`; of few connections they are apart by one at least.
    fn of(limit: usize) -> Self {
        let twentieth = (limit / 20).max(1);
        Self {
            roomy: limit.saturating_sub(2 * twentieth),
            crowded: limit.saturating_sub(twentieth),
            full: limit,
        }
    }

    fn level(&self, open: usize, before: Level) -> Level {
        if open <= self.roomy {
            Level::Roomy
        } else if open >= self.full {
            Level::Full
        } else if open >= self.crowded {
            before.max(Level::Crowded)
        } else {
            before
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    open: usize,
    level: Level,
    /// How many times it was no more `Roomy`.
    crowds: u64,
}

impl Taken {
    const NONE: Self = Self {
        open: 0,
        level: Level::Roomy,
        crowds: 0,
    };
}

/// The places of all client connections.
#[derive(Debug)]
pub(crate) struct Capacity {
    marks: Marks,
    taken: watch::Sender<Taken>,
    metrics: Arc<Metrics>,
    complaints: Seldom,
}

impl Capacity {
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.set_connection_limit(limit);
        Arc::new(Self {
            marks: Marks::of(limit),
            taken: watch::Sender::new(Taken::NONE),
            metrics,
            complaints: Seldom::new(COMPLAIN_EVERY),
        })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken.borrow().level == Level::Full
    }

    /// Waits while nothing is to be accepted.
    pub(crate) async fn room(&self) {
        self.reaches(|level| level != Level::Full).await;
    }

    /// Waits until nothing more is to be accepted.
    pub(crate) async fn full(&self) {
        self.reaches(|level| level == Level::Full).await;
    }

    async fn reaches(&self, wanted: impl Fn(Level) -> bool) {
        let mut taken = self.taken.subscribe();
        // The sender lives as long as this borrow, so that there is always an answer.
        let _ = taken.wait_for(|taken| wanted(taken.level)).await;
    }

    /// A place for a connection that was accepted. There is always one: two listeners that accept at the same moment go over the limit by
    /// one, which the reserve of files has room for.
    pub(crate) fn take(self: &Arc<Self>) -> Seat {
        let before = self.count(|open| open + 1);
        Seat {
            crowd: (before.level > Level::Roomy).then_some(before.crowds),
            capacity: self.clone(),
        }
    }

    /// Changes how many are open; returns what was before.
    fn count(&self, change: impl FnOnce(usize) -> usize) -> Taken {
        let (mut before, mut after) = (Taken::NONE, Taken::NONE);
        self.taken.send_if_modified(|taken| {
            before = *taken;
            taken.open = change(taken.open);
            taken.level = self.marks.level(taken.open, before.level);
            if before.level == Level::Roomy && taken.level > Level::Roomy {
                taken.crowds += 1;
            }
            // Within the lock: the gauge must not show an older number for ever.
            self.metrics.set_open_connections(taken.open);
            after = *taken;
            after.level != before.level
        });
        if after.level == Level::Full && before.level != Level::Full {
            self.metrics.accept_stopped();
            // Not within the lock: who reads the log may be slow.
            if self.complaints.may_tell() {
                let (connections, until) = (after.open, self.marks.roomy);
                tracing::warn!(
                    connections,
                    until,
                    "the limit of connections is reached; accepting stops"
                );
            }
        }
        before
    }
}

/// One connection's place; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Which crowd it came into, when there was room for few more.
    crowd: Option<u64>,
    capacity: Arc<Capacity>,
}

impl Seat {
    /// Whether its requests are to be turned away now.
    pub(crate) fn is_turned_away(&self) -> bool {
        self.crowd.is_some_and(|crowd| {
            let taken = self.capacity.taken.borrow();
            taken.level > Level::Roomy && taken.crowds == crowd
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.capacity.count(|open| open.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn capacity(limit: usize) -> Arc<Capacity> {
        Capacity::new(limit, Arc::new(Metrics::new()))
    }

    fn take(capacity: &Arc<Capacity>, count: usize) -> Vec<Seat> {
        (0..count).map(|_| capacity.take()).collect()
    }

    fn accepts(capacity: &Capacity) -> bool {
        let (room, full) = (
            capacity.room().now_or_never(),
            capacity.full().now_or_never(),
        );
        assert_eq!(room.is_some(), full.is_none());
        assert_eq!(room.is_some(), !capacity.is_full());
        room.is_some()
    }

    #[test]
    fn from_95_percent_on_who_comes_is_turned_away_until_90_are_left() {
        let capacity = capacity(100);
        let mut seats = take(&capacity, 95);
        assert!(seats.iter().all(|seat| !seat.is_turned_away()));
        let late = capacity.take();
        assert!(late.is_turned_away() && accepts(&capacity));

        seats.truncate(90);
        assert_eq!(capacity.taken.borrow().open, 91);
        assert!(late.is_turned_away() && capacity.take().is_turned_away());
        // Who was there before is served all the while.
        assert!(seats.iter().all(|seat| !seat.is_turned_away()));
        seats.truncate(89);
        assert!(!late.is_turned_away() && !capacity.take().is_turned_away());

        // Who could have been served since is among those who were there before, the next time.
        seats.extend(take(&capacity, 6));
        assert!(capacity.take().is_turned_away() && !late.is_turned_away());
    }

    #[test]
    fn at_the_limit_nothing_is_accepted_until_90_percent_are_left() {
        let capacity = capacity(100);
        let mut seats = take(&capacity, 99);
        assert!(accepts(&capacity));
        seats.push(capacity.take());
        assert!(!accepts(&capacity));
        seats.truncate(91);
        assert!(!accepts(&capacity));
        seats.truncate(90);
        assert!(accepts(&capacity));
        drop(seats);
        assert_eq!(capacity.taken.borrow().open, 0);
    }

    #[test]
    fn marks_of_few_connections_are_apart() {
        let capacity = capacity(16);
        let mut seats = take(&capacity, 15);
        assert!(seats.iter().all(|seat| !seat.is_turned_away()));
        seats.push(capacity.take());
        assert!(seats[15].is_turned_away() && !accepts(&capacity));
        seats.truncate(14);
        assert!(accepts(&capacity) && !capacity.take().is_turned_away());
    }

    #[tokio::test]
    async fn who_waits_for_room_is_woken() {
        let capacity = capacity(20);
        let mut seats = take(&capacity, 20);
        let waiting = capacity.room();
        let leaving = async {
            tokio::task::yield_now().await;
            seats.clear();
        };
        tokio::join!(waiting, leaving);
        assert!(accepts(&capacity));
    }
}
