//! [`Patience`]: how the writer waits for work, and then a moment for more to share its transaction; and how
//! those who bring work see to it that it gets a processor.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// Nobody need come: the writer is at work.
const NOBODY: usize = usize::MAX;

/// Enough have come: the writer is awake, and may have no processor yet.
const CALLED: usize = usize::MAX - 1;

/// Whoever comes wakes the writer by what he brings.
const ANYBODY: usize = 0;

/// Where the writer waits until enough work has come. Whoever brings some looks here, and wakes it only if
/// that is enough: to be woken for each costs more than to do it.
///
/// The system wakes it on the processor that it had before. There it waits for whatever guest has that one now,
/// which may be for as long as guests have work, while those on another processor have none left and wait for
/// it. So whoever comes meanwhile offers his.
pub(super) struct Patience {
    /// How many must be there for the writer to be woken, or one of the above.
    enough: AtomicUsize,
    writer: OnceLock<Thread>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Patience {
            enough: AtomicUsize::new(NOBODY),
            writer: OnceLock::new(),
        }
    }

    /// The writer waits for anybody, in its own way, until [`Patience::work`].
    pub(super) fn rest(&self) {
        self.enough.store(ANYBODY, Ordering::SeqCst);
    }

    /// The writer waits for the disk, and then for a processor, until [`Patience::work`].
    pub(super) fn leave(&self) {
        self.enough.store(CALLED, Ordering::SeqCst);
    }

    /// The writer is at work.
    pub(super) fn work(&self) {
        self.enough.store(NOBODY, Ordering::SeqCst);
    }

    /// Waits until so many are there, one at least, but no longer than `most`, and sometimes less long. `count`
    /// tells how many there are. Always the same thread calls this; it blocks.
    pub(super) fn wait(&self, enough: usize, most: Duration, count: impl FnOnce() -> usize) {
        self.writer.get_or_init(thread::current);
        self.enough.store(enough, Ordering::SeqCst);
        // Who came before that wakes nobody.
        if count() < enough {
            thread::park_timeout(most);
        }
        self.work();
    }

    /// So many are there now.
    pub(super) fn came(&self, count: usize) {
        let enough = self.enough.load(Ordering::SeqCst);
        if enough == CALLED {
            thread::yield_now();
        }
        if count < enough {
            return;
        }
        let order = Ordering::SeqCst;
        // Of those who come at once, one is enough.
        if self
            .enough
            .compare_exchange(enough, CALLED, order, order)
            .is_ok()
            && enough != ANYBODY
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test may take: whoever is not woken hangs.
    const FOR_EVER: Duration = Duration::MAX;

    #[test]
    fn what_is_there_already_is_not_waited_for() {
        Patience::new().wait(3, FOR_EVER, || 3);
    }

    #[test]
    fn the_last_of_those_that_are_waited_for_wakes() {
        let patience = Patience::new();
        std::thread::scope(|scope| {
            let (begin, begun) = std::sync::mpsc::channel();
            let waiting = scope.spawn(|| {
                patience.wait(3, FOR_EVER, move || {
                    begin.send(()).unwrap();
                    0
                });
            });
            begun.recv().unwrap();
            patience.came(1);
            patience.came(2);
            assert!(!waiting.is_finished());
            patience.came(3);
        });
        assert_eq!(patience.enough.load(Ordering::SeqCst), NOBODY);
    }

    #[test]
    fn whoever_finds_the_writer_at_rest_calls_it_and_others_do_not() {
        let patience = Patience::new();
        let state = || patience.enough.load(Ordering::SeqCst);
        patience.came(1);
        assert_eq!(state(), NOBODY);
        patience.rest();
        for _ in 0..2 {
            patience.came(1);
            assert_eq!(state(), CALLED);
        }
        patience.work();
        patience.leave();
        patience.came(1);
        assert_eq!(state(), CALLED);
        patience.work();
        assert_eq!(state(), NOBODY);
    }

    #[test]
    fn nobody_waits_for_ever_for_what_does_not_come() {
        let patience = Patience::new();
        patience.wait(3, Duration::from_millis(1), || 0);
        patience.came(3);
        assert_eq!(patience.enough.load(Ordering::SeqCst), NOBODY);
    }
}
