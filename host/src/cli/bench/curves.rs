//! How the cost of a task grows with its payload, with tasks at once, with plugins and with the queue.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};

use super::burn::{burn, fill};
use super::curve::{Curve, Series};
use super::figures::Unit;
use super::sandbox::Pair;
use super::{Stand, no_op, plot, remove};
use crate::broker::Message;
use crate::cli::worker::Rig;
use crate::cli::{Exit, Stopped};
use crate::config::Config;
use crate::plugin::embedded;
use crate::plugin::registry::Directory;
use crate::worker::StopSwitch;
use crate::worker::prefetch::Prefetch;

const PAYLOADS: [u64; 7] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
const AT_ONCE: [u64; 7] = [1, 3, 10, 30, 100, 300, 1_000];
const PLUGINS: [u64; 7] = AT_ONCE;
const LENGTHS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Tasks that a point of a worker's curve is measured with.
const TASKS: u64 = 5_000;
/// Of a queue's curve: the shortest queue has no more.
const FROM_QUEUE: u64 = 1_000;
/// Runs in the sandbox that a point is measured with.
const RUNS: u64 = 20_000;
/// Bytes that a point of the payload's curve carries in all, at most.
const CARRIED: u64 = 500_000_000;

const PER_TASK: &str = "processor time of a task";

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Curve>, Stopped> {
    let mut curves = vec![payload(stand).await?, at_once(stand).await?];
    curves.extend(plugins(stand).await?);
    curves.push(queue_length(stand).await?);
    Ok(curves)
}

/// Draws them: into one file if its name ends in `.svg`, else into a folder, a file for each.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn draw(curves: &[Curve], path: &Path) -> Result<(), Stopped> {
    let write = |path: &Path, drawn: String| {
        std::fs::write(path, drawn)
            .with_context(|| format!("cannot write the plot {}", path.display()))
            .map_err(|error| Stopped::new(Exit::Internal, error))
    };
    if path.extension().is_some_and(|extension| extension == "svg") {
        return write(path, plot::sheet(curves));
    }
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))?;
    for curve in curves {
        let file = path.join(curve.name).with_extension("svg");
        write(&file, plot::sheet(std::slice::from_ref(curve)))?;
    }
    Ok(())
}

/// In the sandbox, beside wasmtime alone.
async fn payload(stand: &Stand<'_>) -> Result<Curve, Stopped> {
    let (mut ours, mut alone) = (Series::new("a run"), Series::new("wasmtime alone"));
    let pair = Pair::new(stand, stand.config.slots.get())?;
    for size in PAYLOADS {
        let task = pair.task(size)?;
        let runs = stand.tasks((CARRIED / size).min(RUNS));
        let measured = stand
            .repeat(&format!("payload of {size} bytes"), async || {
                Ok((
                    pair.ours(&task, runs, super::sandbox::AT_ONCE).await?,
                    pair.alone(&task, runs).await?,
                ))
            })
            .await?;
        ours.add(size, measured.iter().map(|(ours, _)| ours.cpu_each(runs)));
        alone.add(size, measured.iter().map(|(_, it)| it.cpu_each(runs)));
    }
    Ok(Curve {
        name: "payload",
        along: "bytes of payload, in and out",
        what: "processor time of a run",
        unit: Unit::Micros,
        series: vec![ours, alone],
    })
}

/// In the sandbox and in a worker, which has as many slots.
async fn at_once(stand: &Stand<'_>) -> Result<Curve, Stopped> {
    let mut runs_alone = Series::new("a run in the sandbox");
    let mut in_worker = Series::new("a task of a worker, embedded queue");
    let most = AT_ONCE[AT_ONCE.len() - 1];
    let pair = Pair::new(stand, usize::try_from(most).unwrap_or(usize::MAX))?;
    let task = pair.task(20)?;
    let runs = stand.tasks(RUNS);
    for at_once in AT_ONCE {
        // Few at once are a commit each, and a disk does only so many.
        let tasks = stand.tasks(TASKS.min(500 * at_once));
        let slots = NonZeroUsize::new(usize::try_from(at_once).unwrap_or(usize::MAX));
        let measured = stand
            .repeat(&format!("{at_once} at once"), async || {
                let run = pair.ours(&task, runs, at_once).await?;
                let mut config = stand.embedded()?;
                config.slots = slots.unwrap_or(NonZeroUsize::MIN);
                config.prefetch = Prefetch::Fixed(u16::try_from(at_once).unwrap_or(u16::MAX));
                fill_embedded(&config, tasks, &[no_op()]).await?;
                Ok((run, burn(&config, tasks).await?.spent))
            })
            .await?;
        runs_alone.add(at_once, measured.iter().map(|(run, _)| run.cpu_each(runs)));
        in_worker.add(at_once, measured.iter().map(|(_, it)| it.cpu_each(tasks)));
    }
    Ok(Curve {
        name: "concurrency",
        along: "tasks at once",
        what: PER_TASK,
        unit: Unit::Micros,
        series: vec![runs_alone, in_worker],
    })
}

/// A worker whose tasks go round all its plugins; and the start of that worker.
async fn plugins(stand: &Stand<'_>) -> Result<[Curve; 2], Stopped> {
    let mut cost = Series::new("a task of a worker, embedded queue");
    let mut start = Series::new("a start, all compiled before");
    let tasks = stand.tasks(TASKS);
    for plugins in PLUGINS {
        let measured = stand
            .repeat(&format!("{plugins} plugins"), async || {
                let config = stand.embedded()?;
                let Directory::Named(directory) = &config.plugins else {
                    unreachable!("a directory was named");
                };
                let mut messages = Vec::new();
                for number in 0..plugins {
                    let name = format!("echo-{number}");
                    std::fs::write(directory.join(format!("{name}.wasm")), embedded::echo())
                        .context("cannot write a plugin")?;
                    messages.push(Message {
                        plugin: Some(name),
                        ..no_op()
                    });
                }
                let began = Instant::now();
                start_and_stop(&config).await?;
                let took = began.elapsed();
                fill_embedded(&config, tasks, &messages).await?;
                Ok((burn(&config, tasks).await?.spent, took))
            })
            .await?;
        cost.add(plugins, measured.iter().map(|(it, _)| it.cpu_each(tasks)));
        let took = measured.iter().map(|(_, took)| took.as_secs_f64() * 1e3);
        start.add(plugins, took);
    }
    let curve = |name, what, unit, series| Curve {
        name,
        along: "plugins loaded",
        what,
        unit,
        series: vec![series],
    };
    Ok([
        curve("plugins", PER_TASK, Unit::Micros, cost),
        curve("start", "start of a worker", Unit::Millis, start),
    ])
}

async fn start_and_stop(config: &Config) -> Result<(), Stopped> {
    let rig = Rig::build(config, Vec::new()).await?;
    let (switch, stop) = StopSwitch::new();
    switch.drain();
    rig.run(stop).await
}

/// A worker that takes some tasks from a queue that has many more.
async fn queue_length(stand: &Stand<'_>) -> Result<Curve, Stopped> {
    let mut series = vec![on_queue(stand, &stand.embedded()?, "embedded queue").await?];
    if let Some(options) = stand.rabbitmq() {
        let config = stand.on_rabbitmq(options)?;
        let measured = on_queue(stand, &config, "RabbitMQ").await;
        remove(options, &config.queues[0]).await?;
        series.push(measured?);
    }
    Ok(Curve {
        name: "queue",
        along: "tasks in the queue",
        what: PER_TASK,
        unit: Unit::Micros,
        series,
    })
}

async fn on_queue(stand: &Stand<'_>, config: &Config, broker: &str) -> Result<Series, Stopped> {
    let mut series = Series::new(format!("a task of a worker, {broker}"));
    let tasks = stand.tasks(FROM_QUEUE);
    for length in LENGTHS.map(|length| stand.tasks(length)) {
        let measured = stand
            .repeat(&format!("{length} tasks in the {broker}"), async || {
                fill_up_to(config, length).await?;
                Ok(burn(config, tasks).await?.spent)
            })
            .await?;
        series.add(length, measured.iter().map(|spent| spent.cpu_each(tasks)));
    }
    Ok(series)
}

async fn fill_up_to(config: &Config, length: u64) -> Result<(), Stopped> {
    let broker = crate::cli::connect(&config.broker, Arc::new(|_| {})).await?;
    let queue = &config.queues[0];
    let filled = async {
        let there = broker.depth(queue).await?.map_or(0, |depth| depth.ready);
        let missing = length.saturating_sub(there);
        fill(broker.as_ref(), queue, missing, &no_op()).await
    };
    let filled = filled.await;
    broker.close().await;
    filled
}

/// Puts so many tasks on the queue, of these kinds in turn.
async fn fill_embedded(config: &Config, tasks: u64, kinds: &[Message]) -> Result<(), Stopped> {
    let tasks = usize::try_from(tasks).map_err(|_| anyhow!("too many tasks"))?;
    let broker = crate::cli::connect(&config.broker, Arc::new(|_| {})).await?;
    let messages = kinds.iter().cycle().take(tasks).cloned().collect();
    let published = broker.publish(&config.queues[0], messages, None).await;
    broker.close().await;
    Ok(published?)
}
