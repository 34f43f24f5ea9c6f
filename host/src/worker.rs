//! [`Worker`]: takes deliveries from its queues, runs each in a slot, and settles it by its outcome.

mod attempt;
mod runs;
mod stop;
mod trial;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::broker::{Broker, BrokerError, Consumer, Delivery, Suspects};
use crate::event::{Event, Observers};
use crate::name::{PluginName, QueueName};
use crate::plugin::registry::Registry;
use crate::sandbox::{Cancel, Sandbox};
use crate::settlement::Parking;
use crate::task::TaskRules;

use self::attempt::Company;
use self::runs::Runs;
pub use self::stop::{Stop, StopSwitch};

/// The share of the grace period after which running plugins are told that they are cancelled; the
/// rest is theirs to come to an end.
const CANCEL_AFTER: f64 = 0.8;

/// Why waiting for a slot or at a gate cannot fail.
const OPEN: &str = "these semaphores are never closed";

/// How long releases may take once the grace period is over.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// What a worker is told once, when it starts.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// What dead letters and logs call this worker.
    pub name: String,
    /// The queues that it takes tasks from.
    pub queues: Vec<QueueName>,
    /// How many tasks run at once.
    pub slots: usize,
    /// How many deliveries of one queue may be unsettled at once.
    pub prefetch: u16,
    /// How long running tasks have once the worker is stopping.
    pub grace: Duration,
    /// What a message must keep to.
    pub rules: TaskRules,
    /// How long tasks wait for a plugin that is not here.
    pub parking: Parking,
}

/// Runs tasks until it is stopped.
pub struct Worker {
    broker: Arc<dyn Broker>,
    shared: Arc<Shared>,
}

/// What every attempt of a worker shares.
struct Shared {
    settings: WorkerSettings,
    registry: Arc<Registry>,
    sandbox: Arc<Sandbox>,
    observers: Observers,
    runs: Runs,
    slots: Semaphore,
    /// Held while one queue's suspects are tried, for two trials at once would not be alone.
    dock: Semaphore,
    /// One gate for each plugin whose manifest bounds how many of its tasks run at once, with the
    /// bound that it was made for.
    gates: Mutex<HashMap<PluginName, (NonZeroU32, Arc<Semaphore>)>>,
    cancel: Cancel,
    stop: Stop,
}

impl Worker {
    /// A worker on `broker` that runs the plugins of `registry`, until `stop` says so.
    pub fn new(
        settings: WorkerSettings,
        broker: Arc<dyn Broker>,
        registry: Arc<Registry>,
        sandbox: Arc<Sandbox>,
        observers: Observers,
        stop: Stop,
    ) -> Self {
        let shared = Shared {
            slots: Semaphore::new(settings.slots),
            dock: Semaphore::new(1),
            runs: Runs::default(),
            gates: Mutex::default(),
            cancel: Cancel::new(),
            settings,
            registry,
            sandbox,
            observers,
            stop,
        };
        Worker {
            broker,
            shared: Arc::new(shared),
        }
    }

    /// Works until the stop is given, then drains: running tasks may finish within the grace period,
    /// and what is left is released to its queue with its attempt unspent. When the stop is given a
    /// second time, it returns at once, and the broker delivers again what was unsettled.
    ///
    /// # Errors
    /// When a queue cannot be opened at the start. Later trouble with the broker is an event, and
    /// the worker goes on trying.
    pub async fn run(self) -> Result<(), BrokerError> {
        let mut intakes = JoinSet::new();
        for queue in &self.shared.settings.queues {
            let consumer = self
                .broker
                .consume(queue, self.shared.settings.prefetch)
                .await?;
            let suspects = self.broker.suspects(queue).await?;
            let intake = Intake::new(self.shared.clone(), queue.clone(), consumer);
            intakes.spawn(intake.run(suspects));
        }
        let work = async {
            while let Some(ended) = intakes.join_next().await {
                report_panic(ended);
            }
            self.broker.close().await;
        };
        tokio::select! {
            () = work => {}
            () = self.shared.stop.ending() => {}
        }
        Ok(())
    }
}

/// Takes deliveries from one queue and owns the attempts that they become.
struct Intake {
    shared: Arc<Shared>,
    queue: QueueName,
    consumer: Box<dyn Consumer>,
    attempts: JoinSet<()>,
}

impl Intake {
    fn new(shared: Arc<Shared>, queue: QueueName, consumer: Box<dyn Consumer>) -> Self {
        Intake {
            shared,
            queue,
            consumer,
            attempts: JoinSet::new(),
        }
    }

    async fn run(mut self, suspects: Box<dyn Suspects>) {
        let trials = trial::hold(self.shared.clone(), self.queue.clone(), suspects);
        self.attempts.spawn(trials);
        let limit = usize::from(self.shared.settings.prefetch);
        let mut batch: Vec<Delivery> = Vec::with_capacity(limit);
        let stop = self.shared.stop.clone();
        loop {
            tokio::select! {
                () = stop.draining() => break,
                () = self.consumer.next(&mut batch, limit) => self.begin(&mut batch).await,
                Some(ended) = self.attempts.join_next() => report_panic(ended),
            }
        }
        self.drain().await;
    }

    /// Starts an attempt for each delivery. What is suspected leaves the queue first, before another of
    /// them can kill the worker once more.
    async fn begin(&mut self, batch: &mut Vec<Delivery>) {
        let attempt = |delivery| {
            let (shared, queue) = (self.shared.clone(), self.queue.clone());
            attempt::run(shared, queue, delivery, Company::Others)
        };
        let suspected = batch.extract_if(.., |delivery| {
            attempt::is_suspect(&self.shared, &self.queue, delivery)
        });
        join_all(suspected.map(attempt).collect::<Vec<_>>()).await;
        // On the guests' threads, where a run costs no change of threads, and several as one: what is
        // handed from threads to others, and told back, costs more than it does there.
        let threads = self.shared.sandbox.threads();
        let mut attempts: Vec<_> = batch.drain(..).map(attempt).collect();
        if attempts.len() > 1 {
            self.attempts.spawn_on(all(attempts), threads);
        } else if let Some(only) = attempts.pop() {
            self.attempts.spawn_on(only, threads);
        }
        self.shared.sandbox.make_way();
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
        tokio::time::timeout(time, all_ended).await.is_ok()
    }
}

impl Shared {
    /// The gate of a plugin whose tasks may not run more than `bound` at once.
    fn gate(&self, plugin: &PluginName, bound: NonZeroU32) -> Arc<Semaphore> {
        let semaphore = |bound: NonZeroU32| Arc::new(Semaphore::new(bound.get() as usize));
        // The map is whole whatever a thread that panicked was doing to it.
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = gates
            .entry(plugin.clone())
            .and_modify(|(made_for, gate)| {
                if *made_for != bound {
                    (*made_for, *gate) = (bound, semaphore(bound));
                }
            })
            .or_insert_with(|| (bound, semaphore(bound)));
        entry.1.clone()
    }
}

/// Makes a batch's attempts beside each other, so that none can hold up or end another.
async fn all(attempts: Vec<impl Future<Output = ()> + Send + 'static>) {
    let mut running: JoinSet<()> = attempts.into_iter().collect();
    while let Some(ended) = running.join_next().await {
        report_panic(ended);
    }
}

/// A panic in an attempt is a fault of the host. Its delivery stays unsettled, so the broker still
/// has the task.
fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a part of the worker panicked; please report it");
    }
}
