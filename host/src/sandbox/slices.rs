//! [`Slices`]: for how long one guest executes before it lets others have its thread.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wasmtime::{Store, UpdateDeadline};

use super::ticker::{Pulse, SLICE};

/// How long a guest executes when it begins, and where nobody seems to wait: what is short ends within, and
/// need not wait twice. Nothing ends a guest sooner, or sees sooner that it is over a limit.
const LONG_SLICE: Duration = Duration::from_millis(4);

thread_local! {
    /// When the guest that executes on this thread began to, or went on after a wait.
    static RESUMED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Says that a guest executes on this thread from this moment on.
pub(super) fn resume(now: Instant) {
    RESUMED.set(Some(now));
}

/// Where one guest's slices end.
pub(super) struct Slices {
    pulse: Arc<Pulse>,
    /// When the present one began.
    began: Instant,
    /// When other threads could last have the processor.
    offered: Instant,
    /// It has begun, or gone on, because of something else than a slice's end.
    is_first: bool,
    /// It waits for nothing but its turn, or did so last.
    has_given_way: bool,
}

/// Has what executes in this store let others have the thread by and by. The slices are in what the store holds, so
/// that the callback takes no memory of its own.
pub(super) fn cut<T: 'static>(
    store: &mut Store<T>,
    slices: impl Fn(&mut T) -> &mut Slices + Send + Sync + 'static,
) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut store| Ok(slices(store.data_mut()).tick()));
}

impl Slices {
    /// The first begins at this moment.
    pub(super) fn new(pulse: &Arc<Pulse>, now: Instant) -> Slices {
        Slices {
            pulse: Arc::clone(pulse),
            began: now,
            offered: now,
            is_first: true,
            has_given_way: false,
        }
    }

    /// What a tick means for the guest, on a thread of the sandbox's.
    ///
    /// Where nobody waits it keeps the thread: to be put into the queue, and taken from it by another thread,
    /// costs both of them time, and moves it to the processor where those may be who come next.
    fn tick(&mut self) -> UpdateDeadline {
        let now = Instant::now();
        self.begin_after_wait();
        if now - self.began >= LONG_SLICE || !self.is_first && self.others_may_wait() {
            (self.began, self.offered) = (now, now);
            (self.is_first, self.has_given_way) = (false, true);
            return UpdateDeadline::YieldCustom(1, Box::pin(give_way()));
        }
        if now - self.offered >= SLICE / 2 {
            self.offered = now;
            offer_processor();
        }
        UpdateDeadline::Continue(1)
    }

    /// What a guest has slept or waited for is no part of its slice, though the ticks went on meanwhile.
    fn begin_after_wait(&mut self) {
        if let Some(resumed) = RESUMED.get().filter(|resumed| *resumed > self.began) {
            self.is_first |= !self.has_given_way;
            (self.began, self.offered, self.has_given_way) = (resumed, resumed, false);
        }
    }

    fn others_may_wait(&self) -> bool {
        let threads = Handle::current().metrics();
        // One thread alone has timers and sockets to look after.
        threads.num_workers() == 1 || self.pulse.executing() > 1 || threads.global_queue_depth() > 0
    }
}

/// Lets others have the thread, and then its processor.
async fn give_way() {
    tokio::task::yield_now().await;
    // The end of a slice wakes another thread to take what waits. Where the system has put that one on this
    // processor it has not run yet, but counts as awake, so that nobody else would be woken.
    offer_processor();
}

/// Lets another thread have this processor if one waits for it. The system does so by itself after three or
/// four thousandths of a second, and may leave another processor idle meanwhile.
fn offer_processor() {
    thread::yield_now();
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A guest that began longer ago than a slice lasts, on a thread on which none has gone on since.
    fn old() -> Slices {
        RESUMED.set(None);
        Slices::new(&Arc::default(), Instant::now() - 2 * LONG_SLICE)
    }

    #[test]
    fn a_slice_ends_after_a_while() {
        let tick = old().tick();
        assert!(matches!(tick, UpdateDeadline::YieldCustom(1, _)));
    }

    #[test]
    fn what_a_guest_waited_for_is_no_part_of_its_slice() {
        let mut slices = old();
        slices.is_first = false;
        // Later than any moment at which the test may be held up.
        resume(Instant::now() + HOUR);
        assert!(matches!(slices.tick(), UpdateDeadline::Continue(1)));
        assert!(slices.is_first);
    }

    #[test]
    fn who_has_given_way_and_waited_for_a_turn_alone_is_no_newcomer() {
        let mut slices = old();
        resume(Instant::now() + HOUR);
        (slices.is_first, slices.has_given_way) = (false, true);
        slices.begin_after_wait();
        assert!(!slices.is_first);
    }
}
