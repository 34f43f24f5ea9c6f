//! [`Ahead`]: what a worker holds of one queue whose prefetch it decides itself, how it gets on with that, and
//! what of it goes back because others may do it sooner.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a delivery waits for its turn before it may go back. Longer than it takes to see that tasks have become
/// long, so that it is not at once sent here again; and than anything that a broker does in between.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most that this grows to. It doubles each time that something goes back: on RabbitMQ a new subscription
/// brings new deliveries while tasks of the old one still run, and those must not go back and forth.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// How often what has waited for long looks whether it may go back now.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The deliveries of one queue that have not come to the end of their runs.
#[derive(Debug)]
pub(super) struct Ahead {
    held: AtomicUsize,
    /// How many of them may wait as long as it takes: what was asked for.
    wanted: AtomicUsize,
    /// Of those that come now, in milliseconds.
    patience: AtomicU64,
    ended: AtomicU64,
    /// In nanoseconds.
    took: AtomicU64,
}

/// What came to its end since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) count: u64,
    /// From their deliveries to that, all together.
    pub(super) took: Duration,
}

/// One of them. It counts until it is dropped.
pub(super) struct Held {
    ahead: Arc<Ahead>,
    since: Instant,
    patience: Duration,
    /// Nobody died while it was held: to put it back would make the broker forget that.
    may_go_back: bool,
    counts: bool,
}

impl Ahead {
    pub(super) fn new(prefetch: u16) -> Self {
        Ahead {
            held: AtomicUsize::new(0),
            wanted: AtomicUsize::new(prefetch.into()),
            patience: AtomicU64::new(millis(PATIENCE)),
            ended: AtomicU64::new(0),
            took: AtomicU64::new(0),
        }
    }

    /// One more, which came at this time.
    pub(super) fn hold(self: &Arc<Self>, since: Instant, may_go_back: bool) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held {
            ahead: self.clone(),
            since,
            patience: self.patience(),
            may_go_back,
            counts: true,
        }
    }

    /// How many there are.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What came to its end since this was last asked.
    pub(super) fn ended(&self) -> Ended {
        Ended {
            count: self.ended.swap(0, Ordering::Relaxed),
            took: Duration::from_nanos(self.took.swap(0, Ordering::Relaxed)),
        }
    }

    /// Another number was asked for.
    pub(super) fn want(&self, prefetch: u16) {
        let before = self.wanted.swap(prefetch.into(), Ordering::Relaxed);
        if before < prefetch.into() {
            // Tasks are short again.
            self.patience.store(millis(PATIENCE), Ordering::Relaxed);
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// Counts one less, if there are more than are wanted.
    fn give_up_one(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let less = |held: usize| (held > wanted).then(|| held - 1);
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

impl Held {
    /// Its run came to an end.
    pub(super) fn end(self) {
        let took = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.ahead.ended.fetch_add(1, Ordering::Relaxed);
        self.ahead.took.fetch_add(took, Ordering::Relaxed);
    }

    /// Waits until it has waited for so long that it is to go back, if that comes. Then it counts no longer.
    ///
    /// Cancel safe.
    pub(super) async fn goes_back(&mut self) {
        while let Some(wait) = self.stays(self.since.elapsed()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// For how long it stays when it has waited for so long. None: it goes back, and counts no longer.
    fn stays(&mut self, waited: Duration) -> Option<Duration> {
        if waited < self.patience {
            return Some(self.patience - waited);
        }
        if !self.may_go_back || !self.ahead.give_up_one() {
            return Some(LOOK_AGAIN);
        }
        self.counts = false;
        // For those that come from now on; these go together.
        let longer = millis(MOST_PATIENCE.min(2 * self.patience));
        self.ahead.patience.fetch_max(longer, Ordering::Relaxed);
        None
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.counts {
            self.ahead.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(ahead: &Arc<Ahead>, count: usize) -> Vec<Held> {
        let now = Instant::now();
        (0..count).map(|_| ahead.hold(now, true)).collect()
    }

    fn going(held: &mut [Held], waited: Duration) -> usize {
        let going = held.iter_mut().map(|one| one.stays(waited).is_none());
        going.filter(|goes| *goes).count()
    }

    #[test]
    fn no_more_goes_back_than_is_held_beyond_what_is_wanted() {
        let ahead = Arc::new(Ahead::new(8));
        let _busy = hold(&ahead, 2);
        let mut waiting = hold(&ahead, 6);
        assert_eq!(going(&mut waiting, PATIENCE), 0);
        ahead.want(3);
        assert_eq!(going(&mut waiting, PATIENCE / 2), 0);
        assert_eq!(going(&mut waiting, PATIENCE), 5);
        assert_eq!(ahead.held(), 3);
        drop(waiting);
        assert_eq!(ahead.held(), 2);
    }

    #[test]
    fn what_was_there_in_a_crash_stays() {
        let ahead = Arc::new(Ahead::new(1));
        let mut crashed = ahead.hold(Instant::now(), false);
        let mut other = ahead.hold(Instant::now(), true);
        assert_eq!(crashed.stays(PATIENCE), Some(LOOK_AGAIN));
        assert_eq!(other.stays(PATIENCE), None);
    }

    #[test]
    fn each_time_it_takes_longer_until_tasks_are_short_again() {
        let ahead = Arc::new(Ahead::new(0));
        let mut patience = PATIENCE;
        for _ in 0..10 {
            let mut one = ahead.hold(Instant::now(), true);
            assert_eq!(one.stays(Duration::ZERO), Some(patience));
            assert_eq!(one.stays(patience), None);
            patience = MOST_PATIENCE.min(2 * patience);
        }
        assert_eq!(patience, MOST_PATIENCE);
        ahead.want(1);
        assert_eq!(ahead.patience(), PATIENCE);
    }

    #[test]
    fn ends_are_counted_once() {
        let ahead = Arc::new(Ahead::new(1));
        ahead.hold(Instant::now(), true).end();
        drop(ahead.hold(Instant::now(), true));
        assert_eq!((ahead.ended().count, ahead.held()), (1, 0));
        assert_eq!(ahead.ended().count, 0);
    }
}
