//! [`Slots`]: places for what a consumer holds, as many as its prefetch, which may change while some are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use tokio::sync::Notify;

/// The slots of one consumer, which takes all that are free at once; each is given back by itself, from any thread.
/// Cheap to clone; the clones share them.
#[derive(Clone, Default)]
pub(super) struct Slots(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Below zero: there are so many more than there should be, and the next that become free are no more.
    free: AtomicIsize,
    freed: Notify,
}

/// Slots that are taken. They are free again when this is dropped.
pub(super) struct Taken {
    slots: Slots,
    count: usize,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        let slots = Slots::default();
        slots.free(count);
        slots
    }

    /// Makes as many of them `to` as were `from`. Those that are taken stay so.
    pub(super) fn resize(&self, from: usize, to: usize) {
        if to > from {
            self.free(to - from);
        } else {
            let less = (from - to).cast_signed();
            self.0.free.fetch_sub(less, Ordering::Relaxed);
        }
    }

    /// Whether one is free.
    pub(super) fn is_any_free(&self) -> bool {
        self.0.free.load(Ordering::Acquire) > 0
    }

    /// Waits until one may be free. Cancel safe. For one at a time.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// All that are free, or none.
    pub(super) fn take_free(&self) -> Option<Taken> {
        let all = |free: isize| (free > 0).then_some(0);
        let taken = self
            .0
            .free
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, all);
        taken.ok().map(|count| Taken {
            slots: self.clone(),
            count: count.unsigned_abs(),
        })
    }

    fn free(&self, count: usize) {
        let count = count.cast_signed();
        let before = self.0.free.fetch_add(count, Ordering::Release);
        if before <= 0 && before + count > 0 {
            self.0.freed.notify_one();
        }
    }
}

impl Taken {
    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// One of them by itself. None: there is none left.
    pub(super) fn split_one(&mut self) -> Option<Taken> {
        self.count = self.count.checked_sub(1)?;
        Some(Taken {
            slots: self.slots.clone(),
            count: 1,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.slots.free(self.count);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn free(slots: &Slots) -> usize {
        slots.take_free().map_or(0, |taken| taken.count())
    }

    #[test]
    fn what_is_taken_stays_taken_when_there_are_fewer() {
        let slots = Slots::new(4);
        let mut held = slots.take_free().unwrap();
        slots.resize(4, 1);
        let others: Vec<_> = (0..3).map(|_| held.split_one()).collect();
        drop(others);
        assert!(!slots.is_any_free());
        drop(held);
        assert_eq!(free(&slots), 1);
    }

    #[test]
    fn what_was_too_much_is_forgiven_when_there_are_more_again() {
        let slots = Slots::new(4);
        let held = slots.take_free().unwrap();
        slots.resize(4, 1);
        slots.resize(1, 6);
        assert_eq!(free(&slots), 2);
        drop(held);
        assert_eq!(free(&slots), 6);
    }

    #[test]
    fn whoever_waits_hears_of_the_first_that_is_free() {
        let slots = Slots::new(2);
        let mut held = slots.take_free().unwrap();
        // Of those that there were at first.
        let _ = slots.freed().now_or_never();
        let one = held.split_one();
        assert!(slots.freed().now_or_never().is_none());
        drop(one);
        assert!(slots.freed().now_or_never().is_some());
        assert!(slots.is_any_free());
    }
}
