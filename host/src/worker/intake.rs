//! [`Intake`]: takes deliveries from one queue and owns the attempts that they become.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::ahead::{Ahead, Ended, Held};
use super::attempt;
use super::backlog::Backlog;
use super::places::Company;
use super::prefetch::{EVERY, Policy, Prefetch, Seen};
use super::{Shared, report_panic, trial};
use crate::broker::{Consumer, Delivery, Suspects};
use crate::event::Event;
use crate::name::QueueName;

/// The share of the grace period after which running plugins are told that they are cancelled; the
/// rest is theirs to come to an end.
const CANCEL_AFTER: f64 = 0.8;

/// How long releases may take once the grace period is over.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// How long what is suspected may take to leave the queue before others begin all the same: while the broker
/// does not take it, they must not be held up.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// One queue's way into a worker.
pub(super) struct Intake {
    shared: Arc<Shared>,
    queue: QueueName,
    consumer: Box<dyn Consumer>,
    backlog: Arc<Backlog>,
    attempts: JoinSet<()>,
    /// None where the operator has said how many deliveries there may be.
    foresight: Option<Foresight>,
}

/// What decides how many deliveries to ask for, and what it has seen of them since it last looked.
struct Foresight {
    policy: Policy,
    ahead: Arc<Ahead>,
    looked: Instant,
    seen: Seen,
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>, queue: QueueName, consumer: Box<dyn Consumer>) -> Self {
        let settings = &shared.settings;
        let foresight = match settings.prefetch {
            Prefetch::Fixed(_) => None,
            Prefetch::Automatic => Some(Foresight::new(settings.slots, settings.queues.len())),
        };
        Intake {
            backlog: Backlog::new(shared.clone(), queue.clone()),
            shared,
            queue,
            consumer,
            attempts: JoinSet::new(),
            foresight,
        }
    }

    /// Takes and runs until the worker takes no more tasks, and then drains.
    pub(super) async fn run(mut self, suspects: Box<dyn Suspects>) {
        let trials = trial::hold(self.shared.clone(), self.queue.clone(), suspects);
        self.attempts.spawn(trials);
        let settings = &self.shared.settings;
        let limit = usize::from(settings.prefetch.at_most(settings.slots));
        let mut batch: Vec<Delivery> = Vec::new();
        let stop = self.shared.stop.clone();
        loop {
            let due = self.foresight.as_ref().and_then(Foresight::due);
            tokio::select! {
                () = stop.draining() => break,
                () = self.consumer.next(&mut batch, limit) => self.begin(&mut batch).await,
                Some(ended) = self.attempts.join_next() => report_panic(ended),
                () = until(due) => {}
            }
            self.look();
        }
        self.drain().await;
    }

    /// Starts an attempt for each delivery. What is suspected leaves the queue first, before another of
    /// them can kill the worker once more.
    async fn begin(&mut self, batch: &mut Vec<Delivery>) {
        let suspected = batch.extract_if(.., |delivery| {
            attempt::is_suspect(&self.shared, &self.queue, delivery)
        });
        let suspected: Vec<_> = suspected
            .map(|delivery| {
                let (shared, queue) = (self.shared.clone(), self.queue.clone());
                attempt::run_and_settle(shared, queue, delivery, Company::Others(None))
            })
            .collect();
        if !suspected.is_empty() {
            let (gone, all_gone) = oneshot::channel();
            self.attempts.spawn(async move {
                join_all(suspected).await;
                // Who waited may have given up.
                let _ = gone.send(());
            });
            let _ = timeout(LEAVE_WITHIN, all_gone).await;
        }
        let now = Instant::now();
        let foresight = &mut self.foresight;
        let deliveries = batch.drain(..).map(|delivery| {
            let held = foresight.as_mut().map(|it| it.hold(&delivery, now));
            (delivery, Company::Others(held))
        });
        // On the guests' threads, where a run costs no change of threads.
        let threads = self.shared.sandbox.threads();
        for _ in 0..self.backlog.add(deliveries) {
            let working = self.backlog.clone().work_off();
            self.attempts.spawn_on(working, threads);
        }
        self.shared.sandbox.make_way();
    }

    /// Asks for another number of deliveries if that is better.
    fn look(&mut self) {
        let Some(prefetch) = self.foresight.as_mut().and_then(Foresight::look) else {
            return;
        };
        self.consumer.set_prefetch(prefetch);
        self.shared.observers.tell(&Event::Prefetch {
            queue: &self.queue,
            prefetch,
        });
    }

    async fn drain(&mut self) {
        let grace = self.shared.settings.grace;
        let running = self.shared.runs.count();
        self.shared
            .observers
            .tell(&Event::Draining { running, grace });
        self.consumer.stop().await;
        if self.all_ended_within(grace.mul_f64(CANCEL_AFTER)).await {
            return;
        }
        self.shared.cancel.cancel();
        if self
            .all_ended_within(grace.mul_f64(1.0 - CANCEL_AFTER))
            .await
        {
            return;
        }
        self.shared.stop.interrupt();
        if !self.all_ended_within(RELEASE_WITHIN).await {
            tracing::warn!(
                "the broker did not take back every task in time; it delivers them again by itself"
            );
        }
    }

    async fn all_ended_within(&mut self, time: Duration) -> bool {
        let all_ended = async {
            while let Some(ended) = self.attempts.join_next().await {
                report_panic(ended);
            }
        };
        timeout(time, all_ended).await.is_ok()
    }
}

impl Foresight {
    fn new(slots: usize, queues: usize) -> Self {
        let policy = Policy::new(slots, queues);
        Foresight {
            ahead: Arc::new(Ahead::new(policy.prefetch())),
            policy,
            looked: Instant::now(),
            seen: Seen::default(),
        }
    }

    fn hold(&mut self, delivery: &Delivery, now: Instant) -> Held {
        let is_crashed = delivery.crashes > 0;
        self.seen.taken += 1;
        self.seen.bytes += delivery.message.body.len() as u64;
        self.seen.is_crashed |= is_crashed;
        self.ahead.hold(now, !is_crashed)
    }

    /// When to look though nothing comes. None: what there is would be no more than the slots.
    fn due(&self) -> Option<Instant> {
        self.policy.is_grown().then(|| self.looked + EVERY)
    }

    /// Some: so many deliveries are to be asked for from now on.
    fn look(&mut self) -> Option<u16> {
        let now = Instant::now();
        let time = now - self.looked;
        if time < EVERY {
            return None;
        }
        self.looked = now;
        let Ended { count, took } = self.ahead.ended();
        let seen = Seen {
            time,
            ended: count,
            took,
            held: self.ahead.held(),
            ..std::mem::take(&mut self.seen)
        };
        let prefetch = self.policy.look(seen)?;
        self.ahead.want(prefetch);
        Some(prefetch)
    }
}

/// Waits until then, or for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
