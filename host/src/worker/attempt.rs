//! One delivery's way through a worker: from triage to settlement.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use crate::broker::{Delivery, Message, Record};
use crate::event::{Event, Run};
use crate::name::{PluginName, QueueName};
use crate::outcome::{Failure, Outcome, Usage};
use crate::plugin::Plugin;
use crate::sandbox::{Finished, Job};
use crate::settlement::{Facts, RetryPolicy, Settlement, Triage, triage};
use crate::task::Task;

/// How long a task on trial waits for the one before it.
const TRIAL_AGAIN: Duration = Duration::from_secs(1);

/// What an attempt came to, and what the settlement depends on beside that.
struct Attempted {
    outcome: Outcome,
    usage: Option<Usage>,
    plugin: Option<Arc<Plugin>>,
}

impl Attempted {
    fn failed(failure: Failure) -> Self {
        Attempted {
            outcome: Outcome::Failed(failure),
            usage: None,
            plugin: None,
        }
    }

    fn interrupted() -> Self {
        Attempted {
            outcome: Outcome::Interrupted,
            usage: None,
            plugin: None,
        }
    }
}

/// Runs the task that was delivered, if it is one, and settles the delivery.
pub(super) async fn run(shared: Arc<Shared>, queue: QueueName, mut delivery: Delivery) {
    let decoded = Task::decode(&mut delivery.message, &shared.settings.rules);
    let on_trial = Record {
        on_trial: true,
        ..delivery.message.record.clone()
    };
    let attempted = match triage(delivery.crashes, &delivery.message.record) {
        Triage::Guilty => Attempted::failed(Failure::Crashed {
            crashes: delivery.crashes,
        }),
        Triage::Suspect => {
            return release(&shared, delivery, Duration::ZERO, on_trial).await;
        }
        Triage::RunAlone => match shared.dock.try_acquire() {
            Ok(_dock) => attempt(&shared, &queue, &delivery, decoded).await,
            Err(_) => return release(&shared, delivery, TRIAL_AGAIN, on_trial).await,
        },
        Triage::Run => attempt(&shared, &queue, &delivery, decoded).await,
    };
    // A hold that was lost before the run is no longer ours to settle: the broker delivers again.
    if !delivery.hold.is_live() && matches!(attempted.outcome, Outcome::Interrupted) {
        return;
    }
    let Attempted {
        outcome,
        usage,
        plugin,
    } = attempted;
    let settlement = decide(&shared, &delivery.message, outcome, plugin.as_deref());
    settle(&shared, delivery, settlement, usage).await;
}

async fn attempt(
    shared: &Shared,
    queue: &QueueName,
    delivery: &Delivery,
    decoded: Result<Task, crate::task::BadTask>,
) -> Attempted {
    let task = match decoded {
        Ok(task) => task,
        Err(bad) => return Attempted::failed(Failure::BadTask(bad)),
    };
    let places = tokio::select! {
        places = wait_for_places(shared, &task.plugin) => places,
        () = shared.stop.draining() => return Attempted::interrupted(),
    };
    if !delivery.hold.is_live() {
        return Attempted::interrupted();
    }
    // Looked up after the wait, so that a task runs on the version that serves when it starts.
    let Some(plugin) = shared.registry.get(&task.plugin) else {
        return Attempted::failed(unknown_plugin(&task.plugin));
    };
    let run = Run {
        task: &task.id,
        plugin: task.plugin.as_str(),
        attempt: task.attempt,
    };
    shared.observers.tell(&Event::Started { run, queue });
    let job = Job {
        prepared: &plugin.prepared,
        task: &task,
        grants: &plugin.manifest.grants,
        limits: plugin.manifest.limits,
        max_attempts: plugin.manifest.retry.max_attempts,
    };
    let began = Instant::now();
    let Finished { outcome, usage } = tokio::select! {
        finished = shared.sandbox.run(job, &shared.observers, &shared.cancel) => finished,
        () = shared.stop.interrupted() => Finished {
            outcome: Outcome::Interrupted,
            usage: Usage { wall: began.elapsed(), ..Usage::default() },
        },
    };
    drop(places);
    shared.observers.tell(&Event::Finished {
        run,
        outcome: &outcome,
        usage,
    });
    Attempted {
        outcome,
        usage: Some(usage),
        plugin: Some(plugin),
    }
}

/// A place at the plugin's own gate, if it has one, and then a slot: in that order, so that tasks of
/// a plugin that is full keep no slot from others.
async fn wait_for_places<'a>(
    shared: &'a Shared,
    plugin: &PluginName,
) -> (
    Option<OwnedSemaphorePermit>,
    tokio::sync::SemaphorePermit<'a>,
) {
    const OPEN: &str = "these semaphores are never closed";
    let plugin_now = shared.registry.get_or_await(plugin).await;
    let bound = plugin_now.and_then(|plugin| plugin.manifest.concurrency);
    let gate = match bound {
        None => None,
        Some(bound) => Some(
            shared
                .gate(plugin, bound)
                .acquire_owned()
                .await
                .expect(OPEN),
        ),
    };
    (gate, shared.slots.acquire().await.expect(OPEN))
}

fn unknown_plugin(name: &PluginName) -> Failure {
    Failure::UnknownPlugin {
        message: format!("no plugin `{name}` here; put {name}.wasm into the plugin directory"),
    }
}

fn decide(
    shared: &Shared,
    message: &Message,
    outcome: Outcome,
    plugin: Option<&Plugin>,
) -> Settlement {
    let default_plugin = &shared.settings.rules.default_plugin;
    let facts = Facts {
        task: message.id.as_deref().unwrap_or_default(),
        record: &message.record,
        plugin: Some(message.plugin.as_deref().unwrap_or(default_plugin.as_str())),
        digest: plugin.map(|plugin| plugin.digest.as_str()),
        worker: &shared.settings.name,
        now: SystemTime::now(),
        dice: fastrand::f64(),
    };
    match plugin {
        Some(plugin) => plugin
            .manifest
            .retry
            .settle(outcome, shared.settings.parking, &facts),
        // Nothing ran, and no such outcome depends on a plugin's policy.
        None => RetryPolicy::default().settle(outcome, shared.settings.parking, &facts),
    }
}

async fn release(shared: &Shared, delivery: Delivery, after: Duration, record: Record) {
    settle(
        shared,
        delivery,
        Settlement::Release { after, record },
        None,
    )
    .await;
}

async fn settle(shared: &Shared, delivery: Delivery, settlement: Settlement, usage: Option<Usage>) {
    let id = delivery.message.id.clone().unwrap_or_default();
    let named = delivery.message.plugin.clone();
    let run = Run {
        task: &id,
        plugin: named
            .as_deref()
            .unwrap_or(shared.settings.rules.default_plugin.as_str()),
        attempt: delivery.message.record.attempt,
    };
    let began = Instant::now();
    match delivery.settle(settlement.clone()).await {
        Ok(()) => {
            let took = began.elapsed();
            shared.observers.tell(&Event::Settled {
                run,
                settlement: &settlement,
                usage,
                took,
            });
        }
        Err(error) => {
            shared.observers.tell(&Event::NotSettled {
                run,
                error: &error.to_string(),
            });
        }
    }
}
