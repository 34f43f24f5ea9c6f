//! [`Semaphore`]: places that are taken and given back, in turn, and without a lock by whoever need not wait.
//!
//! Tokio's locks its line of waiters each time that a permit is given back, whether or not anybody waits, and every
//! task gives back two. So a counter stands before it: who finds a place there has it, and only who does not, and
//! whoever makes room for those, come to the line.

use std::ops::Deref;
use std::sync::atomic::{AtomicIsize, Ordering};

/// Why waiting for a permit cannot fail.
const OPEN: &str = "nobody closes the semaphore";

/// So many permits, which go to those that wait in the order in which they came.
#[derive(Debug)]
pub(crate) struct Semaphore {
    /// How many are free; below zero, how many are waited for and not on their way.
    free: AtomicIsize,
    /// Has a permit for each that is on its way to those who wait.
    line: tokio::sync::Semaphore,
}

/// Permits of a semaphore, which has them back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permits<S: Deref<Target = Semaphore>> {
    semaphore: S,
    count: isize,
}

/// Somebody in the line. Who leaves it by dropping this has waited for nothing.
struct Waiting<'a> {
    semaphore: &'a Semaphore,
    waits_for: isize,
}

impl Semaphore {
    /// The most permits that there can be.
    pub(crate) const MOST: usize = tokio::sync::Semaphore::MAX_PERMITS;

    /// All of them are free. More than [`Semaphore::MOST`] there are not.
    pub(crate) fn new(count: usize) -> Semaphore {
        Semaphore {
            free: AtomicIsize::new(signed(count)),
            line: tokio::sync::Semaphore::new(0),
        }
    }

    /// Waits for one permit. Cancel safe, but who comes back waits behind others.
    pub(crate) async fn acquire<S: Deref<Target = Semaphore>>(of: S) -> Permits<S> {
        Semaphore::acquire_many(of, 1).await
    }

    /// Waits for so many permits, and keeps all who come later waiting meanwhile. Cancel safe, as
    /// [`Semaphore::acquire`] is.
    pub(crate) async fn acquire_many<S: Deref<Target = Semaphore>>(
        of: S,
        count: usize,
    ) -> Permits<S> {
        let count = signed(count);
        let free = of.free.fetch_sub(count, Ordering::Acquire);
        if free < count {
            let waiting = Waiting {
                semaphore: &of,
                waits_for: count,
            };
            // Some may be free all the same. Two who kept such and waited for more might wait for one another, so that
            // these go to whoever is first.
            if free > 0 {
                of.line.add_permits(free.unsigned_abs());
            }
            let arrived = of.line.acquire_many(in_line(count)).await;
            arrived.expect(OPEN).forget();
            std::mem::forget(waiting);
        }
        Permits {
            semaphore: of,
            count,
        }
    }

    fn release(&self, count: isize) {
        let free = self.free.fetch_add(count, Ordering::Release);
        let waited_for = count.min(-free);
        if waited_for > 0 {
            self.line.add_permits(waited_for.unsigned_abs());
        }
    }
}

impl<S: Deref<Target = Semaphore>> Permits<S> {
    /// Gives all back but one.
    pub(crate) fn keep_one(&mut self) {
        let others = self.count - 1;
        if others > 0 {
            self.count = 1;
            self.semaphore.release(others);
        }
    }
}

impl<S: Deref<Target = Semaphore>> Drop for Permits<S> {
    fn drop(&mut self) {
        self.semaphore.release(self.count);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // What is not on its way will not be sent. What is, or has come, is the line's again by now.
        let not_sent = |free: isize| self.waits_for.min(-free).max(0);
        let (free, line) = (&self.semaphore.free, &self.semaphore.line);
        let before = free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            Some(free + not_sent(free))
        });
        let sent = self.waits_for - before.map_or(0, not_sent);
        for _ in 0..sent {
            // One that is still on its way stays in the line, for the next who finds none free.
            if let Ok(permit) = line.try_acquire() {
                permit.forget();
                self.semaphore.release(1);
            }
        }
    }
}

fn signed(count: usize) -> isize {
    count.min(Semaphore::MOST).cast_signed()
}

/// Nobody has as many slots as would not fit.
fn in_line(count: isize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// How many permits can be had at once.
    fn capacity(semaphore: &Semaphore) -> usize {
        let mut had = Vec::new();
        while let Some(permit) = Semaphore::acquire(semaphore).now_or_never() {
            had.push(permit);
        }
        had.len()
    }

    #[tokio::test]
    async fn permits_go_to_those_who_wait_in_the_order_in_which_they_came() {
        let semaphore = Semaphore::new(1);
        let held = Semaphore::acquire(&semaphore).await;
        let mut first = pin!(Semaphore::acquire(&semaphore));
        let mut second = pin!(Semaphore::acquire(&semaphore));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        // One who comes now does not overtake them.
        assert!(Semaphore::acquire(&semaphore).now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        let Some(held) = first.as_mut().now_or_never() else {
            panic!("it is first");
        };
        drop(held);
        assert!(second.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waits_for_all_has_the_next_and_keeps_others_waiting() {
        let semaphore = Semaphore::new(3);
        let held = [(); 2].map(|()| Semaphore::acquire(&semaphore).now_or_never());
        let mut all = pin!(Semaphore::acquire_many(&semaphore, 3));
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(capacity(&semaphore), 0);
        drop(held);
        let Some(mut all) = all.as_mut().now_or_never() else {
            panic!("all are free");
        };
        assert_eq!(capacity(&semaphore), 0);
        all.keep_one();
        assert_eq!(capacity(&semaphore), 2);
        drop(all);
        assert_eq!(capacity(&semaphore), 3);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_all_as_it_was() {
        let semaphore = Semaphore::new(3);
        for released in 0..3 {
            let mut held: Vec<_> = (0..2)
                .map(|_| Semaphore::acquire(&semaphore).now_or_never())
                .collect();
            let mut all = Box::pin(Semaphore::acquire_many(&semaphore, 3));
            assert!(all.as_mut().now_or_never().is_none());
            let mut behind = pin!(Semaphore::acquire(&semaphore));
            assert!(behind.as_mut().now_or_never().is_none());
            held.truncate(2 - released);
            drop(all);
            assert!(behind.as_mut().now_or_never().is_some());
            drop(held);
            assert_eq!(capacity(&semaphore), 3);
            assert_eq!(semaphore.line.available_permits(), 0);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_are_held_than_there_are_and_none_is_lost_whoever_gives_up() {
        const PERMITS: usize = 3;
        let semaphore = Arc::new(Semaphore::new(PERMITS));
        let held = Arc::new(AtomicUsize::new(0));
        let mut crowd = JoinSet::new();
        for number in 0..16_usize {
            let (semaphore, held) = (semaphore.clone(), held.clone());
            crowd.spawn(async move {
                for round in 0..2000 {
                    let count = 1 + (number + round) % PERMITS;
                    let mut permits = pin!(Semaphore::acquire_many(&*semaphore, count));
                    let is_patient = (number ^ round) % 3 > 0;
                    let permits = match permits.as_mut().now_or_never() {
                        Some(permits) => permits,
                        None if is_patient => permits.await,
                        None => continue,
                    };
                    assert!(held.fetch_add(count, Ordering::SeqCst) + count <= PERMITS);
                    yield_now().await;
                    held.fetch_sub(count, Ordering::SeqCst);
                    drop(permits);
                }
            });
        }
        while let Some(ended) = crowd.join_next().await {
            ended.unwrap();
        }
        assert_eq!(capacity(&semaphore), PERMITS);
    }
}
