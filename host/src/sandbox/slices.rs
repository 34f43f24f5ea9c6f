//! [`Slices`]: for how long one guest executes before it lets others have its thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wasmtime::{Store, UpdateDeadline};

use super::ticker::{Pulse, SLICE};

/// How long a guest executes when it begins, and where nobody seems to wait: what is short ends within, and
/// need not wait twice. Nothing ends a guest sooner, or sees sooner that it is over a limit.
const LONG_SLICE: Duration = Duration::from_millis(4);

/// Where one guest's slices end.
struct Slices {
    pulse: Arc<Pulse>,
    /// When the present one began.
    began: Instant,
    /// When other threads could last have the processor.
    offered: Instant,
    is_first: bool,
}

/// Has what executes in this store let others have the thread by and by.
pub(super) fn cut<T>(store: &mut Store<T>, pulse: &Arc<Pulse>) {
    let now = Instant::now();
    let mut slices = Slices {
        pulse: Arc::clone(pulse),
        began: now,
        offered: now,
        is_first: true,
    };
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| Ok(slices.tick()));
}

impl Slices {
    /// What a tick means for the guest, on a thread of the sandbox's.
    ///
    /// Where nobody waits it keeps the thread: to be put into the queue, and taken from it by another thread,
    /// costs both of them time, and moves it to the processor where those may be who come next.
    fn tick(&mut self) -> UpdateDeadline {
        let now = Instant::now();
        if now - self.began >= LONG_SLICE || !self.is_first && self.others_may_wait() {
            (self.began, self.offered, self.is_first) = (now, now, false);
            return UpdateDeadline::YieldCustom(1, Box::pin(give_way()));
        }
        if now - self.offered >= SLICE / 2 {
            self.offered = now;
            offer_processor();
        }
        UpdateDeadline::Continue(1)
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
