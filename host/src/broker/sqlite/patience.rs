//! [`Patience`]: how the writer waits a moment for more to share its transaction.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// So many never come.
const NOBODY: usize = usize::MAX;

/// Where the writer waits until enough work has come. Whoever brings some looks here, and wakes it only if
/// that is enough: to be woken for each costs more than to do it.
pub(super) struct Patience {
    /// How many must be there for the writer to be woken.
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

    /// Waits until so many are there, but no longer than `most`, and sometimes less long. `count` tells how
    /// many there are. Always the same thread calls this; it blocks.
    pub(super) fn wait(&self, enough: usize, most: Duration, count: impl FnOnce() -> usize) {
        self.writer.get_or_init(std::thread::current);
        self.enough.store(enough, Ordering::SeqCst);
        // Who came before that wakes nobody.
        if count() < enough {
            std::thread::park_timeout(most);
        }
        self.enough.store(NOBODY, Ordering::SeqCst);
    }

    /// So many are there now.
    pub(super) fn came(&self, count: usize) {
        if count < self.enough.load(Ordering::SeqCst) {
            return;
        }
        // Of those who come at once, one is enough.
        if self.enough.swap(NOBODY, Ordering::SeqCst) != NOBODY
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
    fn nobody_waits_for_ever_for_what_does_not_come() {
        let patience = Patience::new();
        patience.wait(3, Duration::from_millis(1), || 0);
        patience.came(3);
        assert_eq!(patience.enough.load(Ordering::SeqCst), NOBODY);
    }
}
