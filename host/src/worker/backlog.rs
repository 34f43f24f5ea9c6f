//! [`Backlog`]: deliveries of one queue that nobody has begun with, worked off by the guests' threads in the order in
//! which they came.
//!
//! A task that is short ends at its first poll, and costs no more here than that: no future is spawned for it,
//! and what settles many wakes one for all of them. What waits goes on by itself; and where tasks are long, each
//! is spawned at once, for the runtime shares threads out more evenly, and its price is nothing to them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future};
use tokio::task::{JoinSet, coop, yield_now};

use super::attempt::{self, Company, Unsettled};
use super::{Shared, report_panic, tell_of_panic};
use crate::broker::Delivery;
use crate::name::QueueName;
use crate::sandbox::said_in_panic;

/// For how long short tasks follow one another before others have the thread: where somebody is seen to wait
/// for it, and at most. To give way costs about a twentieth of the former.
const SHORT_TURN: Duration = Duration::from_micros(50);
const LONG_TURN: Duration = Duration::from_millis(1);

/// How long the first poll of one that goes on takes at least, after which all that waits is spawned: a hundred
/// times what that costs.
const LONG: Duration = Duration::from_micros(200);

/// Deliveries of one queue that nobody has begun with, and what their attempts need.
pub(super) struct Backlog {
    shared: Arc<Shared>,
    queue: QueueName,
    waiting: Mutex<Waiting<(Delivery, Company)>>,
}

/// What waits, and who sees to it.
struct Waiting<T> {
    line: VecDeque<T>,
    /// How many take from it.
    takers: usize,
    /// How many were spawned and have not begun. What comes after them is spawned too, lest it overtake them.
    spawned: usize,
}

/// What whoever takes is to do.
#[derive(Debug, PartialEq)]
enum Next<T> {
    /// Begin with this.
    Begin(T),
    /// Spawn each of these.
    Spawn(VecDeque<T>),
    /// Take no more: there is nothing.
    Leave,
}

impl Backlog {
    pub(super) fn new(shared: Arc<Shared>, queue: QueueName) -> Arc<Backlog> {
        Arc::new(Backlog {
            shared,
            queue,
            waiting: Mutex::default(),
        })
    }

    /// Adds deliveries. So many times is [`Backlog::work_off`] to be spawned on the sandbox's threads.
    pub(super) fn add(&self, deliveries: impl Iterator<Item = (Delivery, Company)>) -> usize {
        let threads = self.shared.sandbox.threads().metrics().num_workers();
        self.waiting().add(deliveries, threads)
    }

    /// Takes one delivery after the other until there is none, makes their attempts, and sees all that it took
    /// to its end. Several may do so at once, each on a thread of the sandbox's.
    ///
    /// Where it is dropped, its attempts are too.
    pub(super) async fn work_off(self: Arc<Self>) {
        // It gives way by itself. Were it told to, whatever it polls then would look as if it waited.
        coop::unconstrained(self.take_turns()).await;
    }

    async fn take_turns(self: &Arc<Self>) {
        let threads = self.shared.sandbox.threads().metrics();
        let mut unsettled = FuturesUnordered::new();
        let mut apart = JoinSet::new();
        // What an attempt that has ended leaves to the next, which saves an allocation of some size.
        let mut place = None;
        let mut turn = Instant::now();
        let mut last = turn;
        let mut is_long = false;
        loop {
            let next = self.waiting().next(is_long);
            let (delivery, company) = match next {
                Next::Begin(one) => one,
                Next::Spawn(all) => {
                    for (delivery, company) in all {
                        apart.spawn(self.clone().attempt(delivery, company));
                    }
                    continue;
                }
                Next::Leave => break,
            };
            let run = attempt::run(self.shared.clone(), self.queue.clone(), delivery, company);
            let run = AssertUnwindSafe(run).catch_unwind();
            let mut attempt = put(run, &mut place);
            let mut is_over = true;
            match future::poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await {
                Poll::Ready(ended) => {
                    place = Some(attempt);
                    if let Some(left) = unless_panicked(ended).flatten() {
                        let settled = left.settle(&self.shared);
                        unsettled.push(AssertUnwindSafe(settled).catch_unwind());
                    }
                }
                Poll::Pending => {
                    is_over = false;
                    apart.spawn(see_to_the_end(self.shared.clone(), attempt));
                }
            }
            // Tells the broker of this one, and hears whether others are settled.
            while let Some(Some(settled)) = unsettled.next().now_or_never() {
                unless_panicked(settled);
            }
            let took = last.elapsed();
            last += took;
            // One that is over has taken what it took, and may only have waited for a processor.
            is_long = !is_over && took >= LONG;
            let turned = last - turn;
            let is_turn_over =
                turned >= LONG_TURN || turned >= SHORT_TURN && threads.global_queue_depth() > 0;
            // Where nothing is left, others have the thread anyway, and what was settled is heard of sooner.
            if is_turn_over && !self.waiting().line.is_empty() {
                yield_now().await;
                turn = Instant::now();
                last = turn;
            }
        }
        while let Some(settled) = unsettled.next().await {
            unless_panicked(settled);
        }
        while let Some(ended) = apart.join_next().await {
            report_panic(ended);
        }
    }

    /// Makes the attempt of one that was spawned.
    async fn attempt(self: Arc<Self>, delivery: Delivery, company: Company) {
        self.waiting().began();
        let (shared, queue) = (self.shared.clone(), self.queue.clone());
        drop(self);
        attempt::run_and_settle(shared, queue, delivery, company).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<(Delivery, Company)>> {
        // Nothing that panics is done under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting {
            line: VecDeque::new(),
            takers: 0,
            spawned: 0,
        }
    }
}

impl<T> Waiting<T> {
    /// Gives how many more are to take, of whom there are to be `threads` at most.
    fn add(&mut self, come: impl Iterator<Item = T>, threads: usize) -> usize {
        self.line.extend(come);
        let more = self.line.len().min(threads.saturating_sub(self.takers));
        self.takers += more;
        more
    }

    /// What is next for one that takes, whose last one was long or not.
    fn next(&mut self, was_long: bool) -> Next<T> {
        if (was_long || self.spawned > 0) && !self.line.is_empty() {
            self.spawned += self.line.len();
            return Next::Spawn(std::mem::take(&mut self.line));
        }
        match self.line.pop_front() {
            Some(first) => Next::Begin(first),
            None => {
                self.takers -= 1;
                Next::Leave
            }
        }
    }

    /// One that was spawned has begun.
    fn began(&mut self) {
        self.spawned -= 1;
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
        let mut waiting = Waiting::default();
        assert_eq!(waiting.add(0..1, 2), 1);
        assert_eq!(waiting.add(1..4, 2), 1);
        assert_eq!(waiting.add(4..5, 2), 0);
        for number in 0..5 {
            assert_eq!(waiting.next(false), Next::Begin(number));
        }
        assert_eq!(waiting.next(false), Next::Leave);
        assert_eq!(waiting.add(5..9, 2), 1);
    }

    #[test]
    fn after_a_long_one_the_rest_is_spawned_and_nothing_overtakes_it() {
        let mut waiting = Waiting::default();
        waiting.add(0..4, 1);
        assert_eq!(waiting.next(false), Next::Begin(0));
        assert_eq!(waiting.next(true), Next::Spawn((1..4).collect()));
        waiting.add(4..6, 1);
        assert_eq!(waiting.next(false), Next::Spawn((4..6).collect()));
        (1..6).for_each(|_| waiting.began());
        waiting.add(6..8, 1);
        assert_eq!(waiting.next(false), Next::Begin(6));
        assert_eq!(waiting.next(true), Next::Spawn([7].into()));
        assert_eq!(waiting.next(true), Next::Leave);
    }
}
