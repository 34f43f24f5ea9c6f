//! [`Metered`]: a guest's run with its processor time measured, and ended once the budget is spent.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::breach::Breach;
use super::slices;
use super::ticker::Ticker;
use crate::outcome::Limit;

/// A poll that is over sooner counts as long as it took. To ask for the processor's time instead is a system
/// call, twice, and a short run's dearest step after its instance.
const SHORT: Duration = Duration::from_millis(1);

/// How old a reading of the processor's time may be when a poll begins. What the thread did in between counts
/// for the poll, if that comes to be a long one, and then for no more than the poll took. Less than [`SHORT`], so that
/// no reading is from before a long poll.
const FRESH: Duration = Duration::from_micros(500);

/// Polls a future, counts the time that the thread's processor spends in it, and stops polling it
/// once that is more than the budget, or once a host call says that another limit is passed.
///
/// A guest comes back here at least once in every slice, so the budget is kept to within a slice and
/// a host call. Time in which the thread waits for a processor does not count, but for a moment of less than
/// [`SHORT`].
pub(super) struct Metered<'a, F> {
    run: F,
    ticker: &'a Ticker,
    breach: &'a Breach,
    budget: Duration,
    spent: Duration,
}

/// How a metered run ended.
pub(super) enum Ended<T> {
    /// By itself.
    Returned(T),
    /// It has passed this limit, and may have no more time.
    Limited(Limit),
}

impl<'a, F: Future + Unpin> Metered<'a, F> {
    /// A run that may use the budget, and has used none of it.
    pub(super) fn new(run: F, ticker: &'a Ticker, budget: Duration, breach: &'a Breach) -> Self {
        Metered {
            run,
            ticker,
            breach,
            budget,
            spent: Duration::ZERO,
        }
    }

    /// What the run has used so far.
    pub(super) fn spent(&self) -> Duration {
        self.spent
    }
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = Ended<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let executing = self.ticker.executing();
        let watch = Stopwatch::start();
        slices::resume(watch.began);
        let polled = Pin::new(&mut self.run).poll(context);
        self.spent += watch.stop();
        drop(executing);
        // Also where it returned in the slice in which it passed the limit: whether a run ends so must
        // not depend on the moment.
        if let Some(limit) = self.breach.limit() {
            return Poll::Ready(Ended::Limited(limit));
        }
        match polled {
            Poll::Ready(returned) => Poll::Ready(Ended::Returned(returned)),
            Poll::Pending if self.spent > self.budget => Poll::Ready(Ended::Limited(Limit::Cpu)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The processor time that its thread uses from its start on. It is started and stopped on one thread.
struct Stopwatch {
    began: Instant,
    /// What the thread had used at [`FRESH`] before that, at the earliest.
    used: Duration,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        thread_local! {
            static LAST: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
        }
        let began = Instant::now();
        let last = LAST.get();
        let used = match last {
            Some((at, used)) if began.saturating_duration_since(at) < FRESH => used,
            Some(_) | None => {
                let used = thread_time();
                LAST.set(Some((began, used)));
                used
            }
        };
        Stopwatch { began, used }
    }

    fn stop(self) -> Duration {
        let took = self.began.elapsed();
        if took < SHORT {
            return took;
        }
        thread_time().saturating_sub(self.used).min(took)
    }
}

/// The processor time that this thread has used in its life.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A clock of this kind starts at zero, so neither field is ever negative.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_counts_for_the_time_that_it_had_a_processor() {
        let watch = Stopwatch::start();
        let until = thread_time() + 2 * SHORT;
        while thread_time() < until {
            std::hint::spin_loop();
        }
        assert!(watch.stop() >= 2 * SHORT);
        let long = Duration::from_millis(50);
        let watch = Stopwatch::start();
        std::thread::sleep(long);
        assert!(watch.stop() < long / 2);
    }

    #[test]
    fn what_came_before_counts_for_no_more_than_a_moment() {
        let before = Stopwatch::start();
        let until = before.began + 2 * FRESH;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let watch = Stopwatch::start();
        assert!(watch.used > before.used);
    }
}
