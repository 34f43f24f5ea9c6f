//! [`Worker`]: takes deliveries from its queues, runs each in a slot, and settles it by its outcome.

mod ahead;
mod attempt;
mod backlog;
mod intake;
mod places;
pub mod prefetch;
mod runs;
mod stop;
mod trial;
mod unsettled;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use crate::broker::{Broker, BrokerError};
use crate::event::{Observers, Run};
use crate::name::QueueName;
use crate::plugin::registry::Registry;
use crate::sandbox::{Cancel, Sandbox};
use crate::semaphore::Semaphore;
use crate::settlement::Parking;
use crate::task::TaskRules;

use self::intake::Intake;
use self::places::Gates;
use self::prefetch::Prefetch;
use self::runs::Runs;
pub use self::stop::{Stop, StopSwitch};

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
    pub prefetch: Prefetch,
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
    runs: Arc<Runs>,
    slots: Semaphore,
    /// Held while one queue's suspects are tried, for two trials at once would not be alone.
    dock: Semaphore,
    gates: Gates,
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
            runs: Arc::default(),
            gates: Gates::default(),
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
            let settings = &self.shared.settings;
            let prefetch = settings.prefetch.at_first(settings.slots);
            let consumer = self.broker.consume(queue, prefetch).await?;
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

impl Shared {
    /// The attempt that a message asks for, whether or not it is a task.
    fn named<'a>(&'a self, id: Option<&'a str>, plugin: Option<&'a str>, attempt: u32) -> Run<'a> {
        let default_plugin = &self.settings.rules.default_plugin;
        Run {
            task: id.unwrap_or_default(),
            plugin: plugin.unwrap_or(default_plugin.as_str()),
            attempt,
        }
    }
}

/// A panic in an attempt is a fault of the host. Its delivery stays unsettled, so the broker still
/// has the task.
fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tell_of_panic(&error);
    }
}

fn tell_of_panic(error: &dyn std::fmt::Display) {
    tracing::error!(%error, "a part of the worker panicked; please report it");
}
