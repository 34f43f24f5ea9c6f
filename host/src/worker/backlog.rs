//! [`Backlog`]: deliveries of one queue that nobody has begun with, worked off by the guests' threads in the order in
//! which they came.
//!
//! A task that is short ends at its first poll, and costs no more here than that: no future is spawned for it,
//! and what settles many wakes one for all of them. One that goes on is spawned then. None is spawned before: each
//! thread begins first with what it has spawned itself, so those in line would overtake one another.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use concurrent_queue::ConcurrentQueue;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future};
use tokio::task::{JoinSet, coop, yield_now};

use super::attempt;
use super::places::Company;
use super::unsettled::Unsettled;
use super::{Shared, report_panic, tell_of_panic};
use crate::broker::Delivery;
use crate::name::QueueName;
use crate::sandbox::said_in_panic;

/// For how long tasks follow one another before others have the thread: where somebody is seen to wait for it,
/// and at most. To give way costs about a twentieth of the former.
const SHORT_TURN: Duration = Duration::from_micros(50);
const LONG_TURN: Duration = Duration::from_millis(1);

/// Deliveries of one queue that nobody has begun with, and what their attempts need.
pub(super) struct Backlog {
    shared: Arc<Shared>,
    queue: QueueName,
    waiting: Waiting<(Delivery, Company)>,
}

/// What waits, and who sees to it. Every task comes by here, whichever thread takes it, so that nothing is locked.
struct Waiting<T> {
    line: ConcurrentQueue<T>,
    /// How many take from it.
    takers: AtomicUsize,
    /// How many may.
    most: usize,
}

/// What one that takes may do before others have the thread.
struct Turn {
    since: Instant,
    /// With how many it is to begin however long they take. Whoever was kept waiting for long would be so again
    /// after each, and what came meanwhile one after the other.
    due: usize,
}

impl Backlog {
    pub(super) fn new(shared: Arc<Shared>, queue: QueueName) -> Arc<Backlog> {
        let threads = shared.sandbox.threads().metrics().num_workers();
        Arc::new(Backlog {
            shared,
            queue,
            waiting: Waiting::new(threads),
        })
    }

    /// Adds deliveries. So many times is [`Backlog::work_off`] to be spawned on the sandbox's threads.
    pub(super) fn add(&self, deliveries: impl Iterator<Item = (Delivery, Company)>) -> usize {
        self.waiting.add(deliveries)
    }

    /// Takes one delivery after the other until there is none, makes their attempts, and sees all that it took
    /// to its end. Several may do so at once, each on a thread of the sandbox's.
    ///
    /// Where it is dropped, its attempts are too.
    pub(super) fn work_off(self: Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let called = Instant::now();
        // It gives way by itself. Were it told to, whatever it polls then would look as if it waited.
        coop::unconstrained(async move { self.take_turns(called).await })
    }

    async fn take_turns(&self, called: Instant) {
        let threads = self.shared.sandbox.threads().metrics();
        let mut unsettled = FuturesUnordered::new();
        let mut apart = JoinSet::new();
        // What an attempt that has ended leaves to the next, which saves an allocation of some size.
        let mut place = None;
        let mut turn = self.turn(called);
        loop {
            let Some((delivery, company)) = self.waiting.next() else {
                break;
            };
            let run = attempt::run(self.shared.clone(), self.queue.clone(), delivery, company);
            let run = AssertUnwindSafe(run).catch_unwind();
            let mut attempt = put(run, &mut place);
            match future::poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await {
                Poll::Ready(ended) => {
                    place = Some(attempt);
                    if let Some(left) = unless_panicked(ended).flatten() {
                        let settled = left.settle(&self.shared);
                        unsettled.push(AssertUnwindSafe(settled).catch_unwind());
                    }
                }
                Poll::Pending => {
                    apart.spawn(see_to_the_end(self.shared.clone(), attempt));
                }
            }
            // Tells the broker of this one, and hears whether others are settled.
            while let Some(Some(settled)) = unsettled.next().now_or_never() {
                unless_panicked(settled);
            }
            // Where nothing is left, others have the thread anyway, and what was settled is heard of sooner.
            if turn.is_over(|| threads.global_queue_depth() > 0) && !self.waiting.line.is_empty() {
                let left = Instant::now();
                yield_now().await;
                turn = self.turn(left);
            }
        }
        while let Some(settled) = unsettled.next().await {
            unless_panicked(settled);
        }
        while let Some(ended) = apart.join_next().await {
            report_panic(ended);
        }
    }

    /// The turn of one that has waited for a thread since then.
    fn turn(&self, waiting_since: Instant) -> Turn {
        Turn::new(waiting_since, Instant::now(), self.waiting.line.len())
    }
}

impl<T> Waiting<T> {
    fn new(most: usize) -> Self {
        Waiting {
            line: ConcurrentQueue::unbounded(),
            takers: AtomicUsize::new(0),
            most,
        }
    }

    /// Gives how many more are to take.
    fn add(&self, come: impl Iterator<Item = T>) -> usize {
        for one in come {
            let is_in = self.line.push(one).is_ok();
            debug_assert!(is_in, "the line has no bound, and nobody closes it");
        }
        self.enlist(self.line.len())
    }

    /// What is next for one that takes. None: it is to take no more.
    fn next(&self) -> Option<T> {
        loop {
            if let Ok(next) = self.line.pop() {
                return Some(next);
            }
            if self.leave() {
                return None;
            }
        }
    }

    /// Whether one that takes, and has found nothing, is to take no more.
    fn leave(&self) -> bool {
        self.takers.fetch_sub(1, Ordering::AcqRel);
        // Who added something before that has counted on this one.
        self.line.is_empty() || self.enlist(1) == 0
    }

    /// Counts so many more who take, or as many as there may be, and gives how many those are.
    fn enlist(&self, wanted: usize) -> usize {
        let more = |takers: usize| wanted.min(self.most.saturating_sub(takers));
        let add = |takers: usize| Some(takers + more(takers));
        let enlisted = self
            .takers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        enlisted.map_or(0, more)
    }
}

impl Turn {
    fn new(waiting_since: Instant, now: Instant, line: usize) -> Turn {
        let was_long = now - waiting_since >= LONG_TURN;
        Turn {
            since: now,
            due: if was_long { line } else { 0 },
        }
    }

    /// Whether others are to have the thread, after one more was begun. `is_wanted` tells whether anybody waits
    /// for it.
    fn is_over(&mut self, is_wanted: impl FnOnce() -> bool) -> bool {
        if self.due > 1 {
            self.due -= 1;
            return false;
        }
        let turned = self.since.elapsed();
        turned >= LONG_TURN || turned >= SHORT_TURN && is_wanted()
    }
}

/// Pins a future where another one was, if there was one.
fn put<F: Future>(future: F, place: &mut Option<Pin<Box<F>>>) -> Pin<Box<F>> {
    match place.take() {
        Some(mut place) => {
            place.set(future);
            place
        }
        None => Box::pin(future),
    }
}

type Caught<T> = Result<T, Box<dyn Any + Send>>;

/// Goes on with an attempt that did not end at its first poll.
async fn see_to_the_end(
    shared: Arc<Shared>,
    attempt: impl Future<Output = Caught<Option<Unsettled>>>,
) {
    if let Some(left) = unless_panicked(attempt.await).flatten() {
        left.settle(&shared).await;
    }
}

/// One attempt's panic ends no other's.
fn unless_panicked<T>(caught: Caught<T>) -> Option<T> {
    caught
        .inspect_err(|panic| tell_of_panic(&said_in_panic(&**panic)))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_begun_with_in_order_by_no_more_than_there_are_threads() {
        let waiting = Waiting::new(2);
        assert_eq!(waiting.add(0..1), 1);
        assert_eq!(waiting.add(1..4), 1);
        assert_eq!(waiting.add(4..5), 0);
        for number in 0..5 {
            assert_eq!(waiting.next(), Some(number));
        }
        assert_eq!(waiting.next(), None);
        assert_eq!(waiting.add(5..9), 1);
    }

    #[test]
    fn what_comes_while_the_last_one_goes_is_not_left_in_line() {
        let waiting = Waiting::new(1);
        assert_eq!(waiting.add(0..1), 1);
        assert_eq!(waiting.next(), Some(0));
        // As if it had looked just before.
        assert_eq!(waiting.add(1..2), 0);
        assert!(!waiting.leave());
        assert_eq!(waiting.next(), Some(1));
        assert!(waiting.leave());
        assert_eq!(waiting.add(2..3), 1);
    }

    #[test]
    fn a_turn_ends_in_time_but_not_before_all_that_waited_for_it_has_begun() {
        let now = Instant::now();
        let long_ago = now.checked_sub(LONG_TURN).unwrap();
        let mut ordinary = Turn::new(now, long_ago + LONG_TURN, 3);
        ordinary.since = long_ago;
        assert!(ordinary.is_over(|| unreachable!("it is over whether or not")));
        let mut late = Turn::new(long_ago, now, 3);
        late.since = long_ago;
        let over = [(); 4].map(|()| late.is_over(|| false));
        assert_eq!(over, [false, false, true, true]);
    }

    #[test]
    fn a_short_turn_ends_where_somebody_waits() {
        let mut turn = Turn {
            since: Instant::now().checked_sub(SHORT_TURN).unwrap(),
            due: 0,
        };
        assert!(turn.is_over(|| true));
        // An hour is not over, whatever else this machine does.
        turn.since = Instant::now() + Duration::from_secs(3600);
        assert!(!turn.is_over(|| true));
    }
}
