//! [`Batch`]: deliveries that came together, worked off by the guests' threads one after the other.
//!
//! A task that is short ends at its first poll, and costs no more here than that: no future is spawned for it,
//! and what settles many wakes one for all of them. What waits goes on by itself; and where tasks are long, each
//! is spawned at once, for the runtime shares threads out more evenly, and its price is nothing to them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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

/// How long a first poll takes at least after which the rest of a batch is spawned: a hundred times what that
/// costs.
const LONG: Duration = Duration::from_micros(200);

/// Deliveries of one queue that nobody has begun with, and what their attempts need.
pub(super) struct Batch {
    shared: Arc<Shared>,
    queue: QueueName,
    waiting: Mutex<VecDeque<(Delivery, Company)>>,
}

impl Batch {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: QueueName,
        deliveries: VecDeque<(Delivery, Company)>,
    ) -> Arc<Batch> {
        Arc::new(Batch {
            shared,
            queue,
            waiting: Mutex::new(deliveries),
        })
    }

    /// Takes one delivery after the other until there is none, makes their attempts, and sees all that it took
    /// to its end. Several may do so at once, each on a thread of the sandbox's.
    ///
    /// Where it is dropped, its attempts are too.
    pub(super) async fn work_off(self: Arc<Self>) {
        // It gives way by itself. Were it told to, whatever it polls then would look as if it waited.
        coop::unconstrained(self.take_turns()).await;
    }

    async fn take_turns(&self) {
        let threads = self.shared.sandbox.threads().metrics();
        let mut unsettled = FuturesUnordered::new();
        let mut apart = JoinSet::new();
        // What an attempt that has ended leaves to the next, which saves an allocation of some size.
        let mut place = None;
        let mut turn = Instant::now();
        let mut last = turn;
        while let Some((delivery, company)) = self.next() {
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
            let took = last.elapsed();
            last += took;
            if took >= LONG {
                break;
            }
            let turned = last - turn;
            if turned >= LONG_TURN || turned >= SHORT_TURN && threads.global_queue_depth() > 0 {
                yield_now().await;
                turn = Instant::now();
                last = turn;
            }
        }
        while let Some((delivery, company)) = self.next() {
            let (shared, queue) = (self.shared.clone(), self.queue.clone());
            apart.spawn(attempt::run_and_settle(shared, queue, delivery, company));
        }
        while let Some(settled) = unsettled.next().await {
            unless_panicked(settled);
        }
        while let Some(ended) = apart.join_next().await {
            report_panic(ended);
        }
    }

    fn next(&self) -> Option<(Delivery, Company)> {
        // Nothing that panics is done under this lock.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
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
