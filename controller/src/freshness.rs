//! When what is watched was looked at again: an epoch makes every watcher begin with a new list, and is over for those that take
//! the events in when each list was answered.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// Counts the times that everything was to be listed again.
pub(crate) type Epoch = u64;

/// Begins epochs.
#[derive(Debug)]
pub(crate) struct Epochs(watch::Sender<Epoch>);

impl Epochs {
    /// The receiver is for the watchers.
    pub(crate) fn new() -> (Self, watch::Receiver<Epoch>) {
        let (sender, receiver) = watch::channel(0);
        (Self(sender), receiver)
    }

    /// Makes every watcher list again.
    pub(crate) fn begin(&self) -> Epoch {
        self.0.send_modify(|epoch| *epoch += 1);
        *self.0.borrow()
    }
}

/// What the watchers that feed one place have answered.
#[derive(Debug)]
pub(crate) struct Answers<S> {
    answered: BTreeMap<S, Epoch>,
    fresh: watch::Sender<Epoch>,
}

impl<S: Ord + Clone> Answers<S> {
    /// The receiver shows the newest epoch that is over.
    pub(crate) fn new(sources: impl IntoIterator<Item = S>) -> (Self, watch::Receiver<Epoch>) {
        let (fresh, receiver) = watch::channel(0);
        let answered = sources.into_iter().map(|source| (source, 0)).collect();
        (Self { answered, fresh }, receiver)
    }

    /// The first list of this source in this epoch was answered, with objects or with an error. Returns whether this was the last
    /// answer of an epoch.
    pub(crate) fn answered(&mut self, source: &S, epoch: Epoch) -> bool {
        let before = self.over();
        self.answered.insert(source.clone(), epoch);
        self.over() > before
    }

    /// The newest epoch that every source has answered.
    fn over(&self) -> Epoch {
        self.answered.values().min().copied().unwrap_or(Epoch::MAX)
    }

    /// Everything that was told so far has been acted upon.
    pub(crate) fn acted(&self) {
        let over = self.over();
        self.fresh.send_if_modified(|fresh| {
            let news = over > *fresh;
            *fresh = over.max(*fresh);
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_over_when_every_source_has_answered_and_that_was_acted_upon() {
        let (epochs, watchers) = Epochs::new();
        let (mut answers, fresh) = Answers::new(["a", "b"]);
        answers.acted();
        let epoch = epochs.begin();
        assert_eq!(*watchers.borrow(), epoch);
        assert!(!answers.answered(&"a", epoch));
        answers.acted();
        assert!(*fresh.borrow() < epoch);
        assert!(answers.answered(&"b", epoch));
        assert!(*fresh.borrow() < epoch);
        answers.acted();
        assert_eq!(*fresh.borrow(), epoch);
    }
}
