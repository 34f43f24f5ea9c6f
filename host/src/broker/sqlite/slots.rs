//! [`Slots`]: places for what a consumer holds, as many as its prefetch, which may change while some are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of one consumer. Cheap to clone; the clones share them.
#[derive(Clone)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// How many more there are than there should be: the next that become free are no more.
    excess: Arc<Mutex<usize>>,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Slots {
            free: Arc::new(Semaphore::new(count)),
            excess: Arc::default(),
        }
    }

    /// Makes as many of them `to` as were `from`. Those that are taken stay so.
    pub(super) fn resize(&self, from: usize, to: usize) {
        let mut excess = self.excess();
        let more = to.saturating_sub(from);
        let forgiven = more.min(*excess);
        *excess = *excess - forgiven + from.saturating_sub(to);
        self.free.add_permits(more - forgiven);
    }

    /// Whether one is free.
    pub(super) fn is_any_free(&self) -> bool {
        self.settle(&mut self.excess());
        self.free.available_permits() > 0
    }

    /// Waits until one may be free. Cancel safe.
    pub(super) async fn freed(&self) {
        // Closed it never is; the permit is only waited for.
        let _ = self.free.acquire().await;
    }

    /// All that are free, or none. Only one claim at a time may do this.
    pub(super) fn take_free(&self) -> Option<OwnedSemaphorePermit> {
        let mut excess = self.excess();
        self.settle(&mut excess);
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        if free == 0 {
            return None;
        }
        // Only claims take permits, one after the other, so what was free still is.
        Arc::clone(&self.free).try_acquire_many_owned(free).ok()
    }

    /// Takes away what is too much of those that are free.
    fn settle(&self, excess: &mut usize) {
        *excess -= self.free.forget_permits(*excess);
    }

    fn excess(&self) -> MutexGuard<'_, usize> {
        // A number is whole whatever panics beside it.
        self.excess.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots) -> usize {
        let taken = slots.take_free();
        taken.map_or(0, |permits| {
            let count = permits.num_permits();
            permits.forget();
            count
        })
    }

    #[test]
    fn what_is_taken_stays_taken_when_there_are_fewer() {
        let slots = Slots::new(4);
        let mut held = slots.take_free().unwrap();
        slots.resize(4, 1);
        drop(held.split(3));
        assert!(!slots.is_any_free());
        drop(held);
        assert_eq!(take(&slots), 1);
    }

    #[test]
    fn what_was_too_much_is_forgiven_when_there_are_more_again() {
        let slots = Slots::new(4);
        let held = slots.take_free().unwrap();
        slots.resize(4, 1);
        slots.resize(1, 6);
        assert_eq!(take(&slots), 2);
        drop(held);
        assert_eq!(take(&slots), 4);
    }
}
