//! [`Metered`]: a guest's run with its processor time measured, and ended once the budget is spent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::breach::Breach;
use super::ticker::Ticker;
use crate::outcome::Limit;

/// Polls a future, counts the time that the thread's processor spends in it, and stops polling it
/// once that is more than the budget, or once a host call says that another limit is passed.
///
/// A guest comes back here at least once in every slice, so the budget is kept to within a slice and
/// a host call. Time in which the thread waits for a processor does not count.
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
        let began = thread_time();
        let polled = Pin::new(&mut self.run).poll(context);
        self.spent += thread_time().saturating_sub(began);
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

/// The processor time that this thread has used in its life.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A clock of this kind starts at zero, so neither field is ever negative.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
