//! A worker that burns down a queue that was filled before, and what that took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::sync::Notify;

use super::clock::process_time;
use crate::broker::{Broker, Message};
use crate::cli::Stopped;
use crate::cli::worker::Rig;
use crate::config::Config;
use crate::event::{Event, Observer};
use crate::name::QueueName;
use crate::settlement::Settlement;
use crate::worker::StopSwitch;

/// Messages that are published at a time.
const BATCH: usize = 5_000;

/// What some tasks took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) wall: Duration,
    /// Of all threads of this process.
    pub(super) cpu: Duration,
}

/// What a worker spent, and with what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burnt {
    pub(super) spent: Spent,
    /// The most deliveries that might be unsettled at once.
    pub(super) prefetch: u16,
}

impl Spent {
    pub(super) fn per_second(self, tasks: u64) -> f64 {
        tasks as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds of processor time.
    pub(super) fn cpu_each(self, tasks: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / tasks as f64
    }
}

/// Counts what a worker starts and settles.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    started: Count,
    under_way: Count,
    done: Count,
    otherwise: Count,
    reached: Notify,
    /// The most that it came to.
    prefetch: AtomicU16,
}

/// A number that somebody may wait for.
struct Count {
    now: AtomicU64,
    wanted: AtomicU64,
}

impl Default for Count {
    fn default() -> Self {
        Count {
            now: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
        }
    }
}

impl Count {
    /// Whether this one is what is waited for: to wake who waits for each of the others would be measured
    /// too.
    fn add_one(&self) -> bool {
        self.now.fetch_add(1, Ordering::SeqCst) + 1 == self.wanted.load(Ordering::SeqCst)
    }

    /// Whether there are so many, which from now on is what is waited for.
    fn wants(&self, count: u64) -> bool {
        self.wanted.store(count, Ordering::SeqCst);
        self.now.load(Ordering::SeqCst) >= count
    }
}

impl Observer for Counter {
    fn observe(&self, event: &Event<'_>) {
        let counts = &self.0;
        let is_reached = match event {
            Event::Started { .. } => counts.started.add_one(),
            Event::Progress { done: 1, .. } => counts.under_way.add_one(),
            Event::Settled {
                settlement: Settlement::Done { .. },
                ..
            } => counts.done.add_one(),
            Event::Settled { .. } | Event::NotSettled { .. } => counts.otherwise.add_one(),
            Event::Prefetch { prefetch, .. } => {
                counts.prefetch.fetch_max(*prefetch, Ordering::Relaxed);
                false
            }
            Event::Broker(_)
            | Event::Plugin(_)
            | Event::Progress { .. }
            | Event::Line { .. }
            | Event::Repeated { .. }
            | Event::Finished { .. }
            | Event::Draining { .. } => false,
        };
        if is_reached {
            counts.reached.notify_one();
        }
    }
}

impl Counter {
    /// Waits until so many attempts have started.
    pub(super) async fn started(&self, tasks: u64) {
        while !self.0.started.wants(tasks) {
            self.0.reached.notified().await;
        }
    }

    /// Waits until so many plugins have told of their first step.
    pub(super) async fn under_way(&self, tasks: u64) {
        while !self.0.under_way.wants(tasks) {
            self.0.reached.notified().await;
        }
    }

    /// Waits until so many tasks are done.
    ///
    /// # Errors
    /// When one was settled in another way: the figures would mean nothing.
    pub(super) async fn done(&self, tasks: u64) -> Result<(), Stopped> {
        while !self.0.done.wants(tasks) {
            if self.0.otherwise.wants(1) {
                return Err(anyhow!("a task of the bench was not done").into());
            }
            self.0.reached.notified().await;
        }
        Ok(())
    }
}

/// Puts so many copies of a message on a queue.
pub(super) async fn fill(
    broker: &dyn Broker,
    queue: &QueueName,
    tasks: u64,
    message: &Message,
) -> Result<(), Stopped> {
    let mut left = usize::try_from(tasks).unwrap_or(usize::MAX);
    while left > 0 {
        let batch = left.min(BATCH);
        broker
            .publish(queue, vec![message.clone(); batch], None)
            .await?;
        left -= batch;
    }
    Ok(())
}

/// Runs a worker until so many tasks are done. What is counted begins with the first task.
pub(super) async fn burn(config: &Config, tasks: u64) -> Result<Burnt, Stopped> {
    let counter = Counter::default();
    let rig = Rig::build(config, vec![Box::new(counter.clone())]).await?;
    let (switch, stop) = StopSwitch::new();
    let worker = tokio::spawn(rig.run(stop));
    counter.started(1).await;
    let (began, cpu) = (Instant::now(), process_time());
    let ended = counter.done(tasks).await;
    let spent = Spent {
        wall: began.elapsed(),
        cpu: process_time() - cpu,
    };
    let at_first = config.prefetch.at_first(config.slots.get());
    let prefetch = at_first.max(counter.0.prefetch.load(Ordering::Relaxed));
    switch.drain();
    worker.await.context("the worker panicked")??;
    ended.map(|()| Burnt { spent, prefetch })
}

/// What prefetches several runs came to, each of which is its baseline's too.
pub(super) fn prefetches(runs: impl Iterator<Item = u16>) -> String {
    let (least, most) = runs.fold((u16::MAX, 0), |(least, most), prefetch| {
        (least.min(prefetch), most.max(prefetch))
    });
    if least < most {
        format!("prefetch {least}..{most}")
    } else {
        format!("prefetch {most}")
    }
}
