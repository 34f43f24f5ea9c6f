//! One delivery's way through a worker: from triage to settlement.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Shared;
use super::places::{Company, NoTurn, wait_for_places};
use super::runs::{Begun, Ending, Key, Past};
use super::unsettled::Unsettled;
use crate::broker::{Delivery, Message, Record, Standing};
use crate::event::{Event, Repeat, Run};
use crate::name::{PluginName, QueueName};
use crate::outcome::{Failure, Outcome, Usage};
use crate::plugin::Plugin;
use crate::sandbox::{Finished, Job};
use crate::settlement::{Facts, RetryPolicy, Settlement, Triage, triage};
use crate::task::{BadTask, Task};

/// A delivery that came back so often does not wait for its first run to end: from version 4 on RabbitMQ
/// drops what came back twenty times. It goes to the suspects, where it waits as long as it takes.
const WORN: u32 = 10;

/// What an attempt came to, and what the settlement depends on beside that.
struct Attempted {
    outcome: Outcome,
    usage: Option<Usage>,
    plugin: Option<Arc<Plugin>>,
    /// None where nothing ran.
    begun: Option<Begun>,
}

impl Attempted {
    fn failed(failure: Failure) -> Self {
        Attempted {
            outcome: Outcome::Failed(failure),
            usage: None,
            plugin: None,
            begun: None,
        }
    }

    fn interrupted() -> Self {
        Attempted {
            outcome: Outcome::Interrupted,
            usage: None,
            plugin: None,
            begun: None,
        }
    }
}

/// Whether a delivery is to leave the queue for the suspects.
pub(super) fn is_suspect(shared: &Shared, queue: &QueueName, delivery: &Delivery) -> bool {
    let is_known = || shared.runs.knows(shared.runs.key(queue, &delivery.message));
    verdict(delivery) == Triage::Suspect && (is_worn(delivery) || !is_known())
}

fn is_worn(delivery: &Delivery) -> bool {
    delivery.standing == Standing::Ordinary && delivery.crashes >= WORN
}

fn verdict(delivery: &Delivery) -> Triage {
    triage(
        delivery.crashes,
        &delivery.message.record,
        delivery.standing,
    )
}

/// Runs the task that was delivered, if it is one, and settles the delivery.
pub(super) async fn run_and_settle(
    shared: Arc<Shared>,
    queue: QueueName,
    delivery: Delivery,
    company: Company,
) {
    if let Some(unsettled) = run(shared.clone(), queue, delivery, company).await {
        unsettled.settle(&shared).await;
    }
}

/// Runs the task that was delivered, if it is one. None: the delivery was lost, and the broker delivers again
/// by itself.
pub(super) async fn run(
    shared: Arc<Shared>,
    queue: QueueName,
    mut delivery: Delivery,
    company: Company,
) -> Option<Unsettled> {
    let key = shared.runs.key(&queue, &delivery.message);
    if let Some((ending, begun)) = recall(&shared, &delivery, key).await {
        return Some(Unsettled::ended_before(delivery, *ending, begun));
    }
    let decoded = Task::decode(&mut delivery.message, &shared.settings.rules);
    let attempted = match verdict(&delivery) {
        Triage::Run => match attempt(&shared, &queue, &delivery, key, decoded, company).await {
            Ok(attempted) => attempted,
            Err(_) if !delivery.hold.is_live() => return None,
            Err(why) => {
                let record = delivery.message.record.clone();
                return Some(Unsettled::put_back(delivery, why.away(), record));
            }
        },
        Triage::Suspect => {
            let record = Record {
                on_trial: true,
                ..delivery.message.record.clone()
            };
            return Some(Unsettled::put_back(delivery, Duration::ZERO, record));
        }
        Triage::Guilty => Attempted::failed(Failure::Crashed {
            crashes: delivery.crashes,
        }),
    };
    // A hold that was lost before the run is no longer ours to settle.
    if !delivery.hold.is_live() && matches!(attempted.outcome, Outcome::Interrupted) {
        return None;
    }
    let Attempted {
        outcome,
        usage,
        plugin,
        begun,
    } = attempted;
    let is_kept = !matches!(outcome, Outcome::Interrupted);
    let settlement = decide(&shared, &delivery.message, outcome, plugin.as_deref());
    let unsettled = Unsettled::new(delivery, settlement, usage);
    Some(match begun {
        Some(begun) => unsettled.of_run(begun, is_kept),
        None => unsettled,
    })
}

/// How the task of a delivery ended that was run here before, or is being run: then it waits for that.
///
/// What comes for the first time is to be run, whatever its id: it is for the broker to say that a message
/// has been here, and a producer may submit a task twice.
async fn recall(shared: &Shared, delivery: &Delivery, key: Key) -> Option<(Box<Ending>, Begun)> {
    let is_again = delivery.crashes > 0 || delivery.standing == Standing::OnTrial;
    if !is_again || is_worn(delivery) {
        return None;
    }
    let tell = |repeat| {
        let Message {
            id, plugin, record, ..
        } = &delivery.message;
        let run = shared.named(id.as_deref(), plugin.as_deref(), record.attempt);
        shared.observers.tell(&Event::Repeated { run, repeat });
    };
    let mut is_told = false;
    // What is lost while it waits is delivered once more, and the ending is left for that.
    while delivery.hold.is_live() {
        match shared.runs.recall(key) {
            Past::Unknown => return None,
            Past::Running(mut ended) => {
                if !std::mem::replace(&mut is_told, true) {
                    tell(Repeat::Running);
                }
                // An error is how the end is told.
                let _ = ended.changed().await;
            }
            Past::Ended(ending, begun) => {
                if !is_told {
                    tell(Repeat::Ended);
                }
                return Some((ending, begun));
            }
        }
    }
    None
}

async fn attempt(
    shared: &Shared,
    queue: &QueueName,
    delivery: &Delivery,
    key: Key,
    decoded: Result<Task, BadTask>,
    mut company: Company,
) -> Result<Attempted, NoTurn> {
    let task = match decoded {
        Ok(task) => task,
        Err(bad) => return Ok(Attempted::failed(Failure::BadTask(bad))),
    };
    // Only if it has to wait does it listen to what comes first.
    if shared.stop.is_draining() {
        return Ok(Attempted::interrupted());
    }
    let places = tokio::select! {
        biased;
        places = wait_for_places(shared, &task.plugin, company.is_others()) => places?,
        () = shared.stop.draining() => return Ok(Attempted::interrupted()),
        () = company.goes_back() => return Err(NoTurn::Ahead),
    };
    if !delivery.hold.is_live() {
        return Ok(Attempted::interrupted());
    }
    // Looked up after the wait, so that a task runs on the version that serves when it starts.
    let Some(plugin) = shared.registry.get(&task.plugin) else {
        return Ok(Attempted::failed(unknown_plugin(&task.plugin)));
    };
    let run = Run {
        task: &task.id,
        plugin: task.plugin.as_str(),
        attempt: task.attempt,
    };
    let begun = shared.runs.begin(key);
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
        // Only a run that waits listens for the end.
        biased;
        finished = shared.sandbox.run(job, &shared.observers, &shared.cancel) => finished,
        () = shared.stop.interrupted() => Finished {
            outcome: Outcome::Interrupted,
            usage: Usage { wall: began.elapsed(), ..Usage::default() },
        },
    };
    drop(places);
    company.end();
    shared.observers.tell(&Event::Finished {
        run,
        outcome: &outcome,
        usage,
    });
    Ok(Attempted {
        outcome,
        usage: Some(usage),
        plugin: Some(plugin),
        begun: Some(begun),
    })
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
