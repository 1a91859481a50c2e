//! Whether this process leads, as everybody asks who pushes or writes.
//!
//! Three things have to hold at the moment of the question: the Lease says that we hold it, its last renewal is recent enough to
//! prove that, and the term was opened (`term`): what is known was looked at again since it began.

use push::Fence;
use tokio::sync::watch;
use tokio::time::Instant;

/// Whether this process leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    Follower,
    /// With the term's fence, for `Welcome`.
    Leader(Fence),
}

/// Where everybody else learns whether this process leads.
#[derive(Debug, Clone)]
pub struct Standing {
    pub(super) held: watch::Receiver<Option<Fence>>,
    pub(super) proven_until: watch::Receiver<Instant>,
    pub(super) opened: watch::Receiver<Option<Fence>>,
}

/// Says in which term this process may lead. The fence and not a flag: a term that is over is closed by itself.
#[derive(Debug)]
pub(crate) struct Opening(pub(super) watch::Sender<Option<Fence>>);

impl Standing {
    /// What holds at this moment. Ask right before every write and every push: between two calls the time may have run out.
    pub fn now(&self) -> Leadership {
        if Instant::now() >= *self.proven_until.borrow() {
            return Leadership::Follower;
        }
        match self.held() {
            Some(fence) if self.opened.borrow().as_ref() == Some(&fence) => {
                Leadership::Leader(fence)
            }
            Some(_) | None => Leadership::Follower,
        }
    }

    /// The term in which this process holds the Lease, opened or not.
    pub(crate) fn held(&self) -> Option<Fence> {
        self.held.borrow().clone()
    }

    /// Waits until this process begins, ends or changes its term; it may return although nothing changed. Never returns once the
    /// election is over.
    pub async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.held.changed() => {}
            Ok(()) = self.opened.changed() => {}
            else => std::future::pending().await,
        }
    }
}

impl Opening {
    /// Returns whether it was closed.
    pub(crate) fn open(&self, fence: &Fence) -> bool {
        self.0.send_if_modified(|opened| {
            let news = opened.as_ref() != Some(fence);
            *opened = Some(fence.clone());
            news
        })
    }

    pub(crate) fn close(&self) {
        self.0.send_if_modified(|opened| opened.take().is_some());
    }

    /// Opens every term as soon as it begins.
    #[cfg(test)]
    pub(crate) async fn open_all(self, mut standing: Standing) {
        loop {
            if let Some(fence) = standing.held() {
                self.open(&fence);
            }
            standing.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const PROVEN_FOR: Duration = Duration::from_secs(6);

    fn fence(transitions: u64) -> Fence {
        Fence {
            lease_uid: "u".to_owned(),
            transitions,
        }
    }

    struct Scene {
        held: watch::Sender<Option<Fence>>,
        proven_until: watch::Sender<Instant>,
        opening: Opening,
        standing: Standing,
    }

    fn scene() -> Scene {
        let (held, held_receiver) = watch::channel(Some(fence(3)));
        let (proven_until, proven_receiver) = watch::channel(Instant::now() + PROVEN_FOR);
        let (opened, opened_receiver) = watch::channel(None);
        Scene {
            held,
            proven_until,
            opening: Opening(opened),
            standing: Standing {
                held: held_receiver,
                proven_until: proven_receiver,
                opened: opened_receiver,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_is_not_renewed_ends_by_the_clock_alone() {
        let scene = scene();
        scene.opening.open(&fence(3));
        let leader = Leadership::Leader(fence(3));
        assert_eq!(scene.standing.now(), leader);
        advance(PROVEN_FOR / 2).await;
        scene.proven_until.send_replace(Instant::now() + PROVEN_FOR);
        advance(PROVEN_FOR / 2).await;
        assert_eq!(scene.standing.now(), leader);
        // No task of the elector runs here, as after SIGSTOP and SIGCONT.
        advance(PROVEN_FOR / 2).await;
        assert_eq!(scene.standing.now(), Leadership::Follower);
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_was_not_opened_is_none() {
        let mut scene = scene();
        assert_eq!(scene.standing.now(), Leadership::Follower);
        scene.opening.open(&fence(3));
        scene.standing.changed().await;
        assert_eq!(scene.standing.now(), Leadership::Leader(fence(3)));
        // The next term is opened anew, without anybody having closed the last.
        scene.held.send_replace(Some(fence(5)));
        scene.standing.changed().await;
        assert_eq!(scene.standing.now(), Leadership::Follower);
        scene.opening.open(&fence(5));
        assert_eq!(scene.standing.now(), Leadership::Leader(fence(5)));
        scene.opening.close();
        assert_eq!(scene.standing.now(), Leadership::Follower);
    }
}
