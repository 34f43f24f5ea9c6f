//! One run of a plugin, beside what wasmtime alone takes for the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::task::JoinSet;

use super::Stand;
use super::burn::Spent;
use super::clock::process_time;
use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit};
use crate::cli::{Stopped, worker};
use crate::event::Observers;
use crate::outcome::Outcome;
use crate::plugin::{Plugin, embedded};
use crate::sandbox::baseline::Bare;
use crate::sandbox::{Cancel, Job, Sandbox};
use crate::task::{Task, new_id};

const RUNS: u64 = 50_000;

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let mut rows = Vec::new();
    for (what, size, runs) in [
        ("no-op", 20, RUNS),
        ("100 KB in and out", 100_000, RUNS / 5),
    ] {
        rows.extend(of_size(stand, what, size, stand.tasks(runs)).await?);
    }
    Ok(rows)
}

/// Runs that are at once, as in a busy worker.
pub(super) const AT_ONCE: u64 = 16;

async fn of_size(stand: &Stand<'_>, what: &str, size: u64, runs: u64) -> Result<Vec<Row>, Stopped> {
    let pair = Pair::new(stand, stand.config.slots.get())?;
    let task = pair.task(size)?;
    let measured = stand
        .repeat(&format!("sandbox, {what}"), async || {
            Ok((
                pair.ours(&task, runs, AT_ONCE).await?,
                pair.alone(&task, runs).await?,
            ))
        })
        .await?;
    let cpu = |spent: Spent| spent.cpu_each(runs);
    let row = Row {
        bench: "sandbox",
        what: format!("processor time of a run, {what}"),
        unit: Unit::Micros,
        ours: Figures::new(measured.iter().map(|(ours, _)| cpu(*ours)).collect()),
        beside: Some(Beside {
            what: "wasmtime alone",
            figures: Figures::new(measured.iter().map(|(_, bare)| cpu(*bare)).collect()),
            by: Comparison::Ratio,
        }),
        reach: Some(Reach::AtMost(1.25)),
    };
    let itself = Row {
        what: "the same".to_owned(),
        beside: None,
        reach: Some(Reach::OursAtMost(15.0)),
        ..row.clone()
    };
    let rate = Row {
        what: format!("runs in a second, {what}"),
        unit: Unit::PerSecond,
        ours: Figures::new(
            measured
                .iter()
                .map(|(ours, _)| ours.per_second(runs))
                .collect(),
        ),
        beside: None,
        reach: None,
        ..row.clone()
    };
    // What a payload costs is memory that is copied, of which nothing is to be reached by itself.
    Ok(if size < 1_000 {
        vec![row, itself, rate]
    } else {
        vec![row, rate]
    })
}

/// The same plugin in the sandbox and in wasmtime alone.
pub(super) struct Pair {
    sandbox: Arc<Sandbox>,
    plugin: Arc<Plugin>,
    bare: Arc<Bare>,
}

impl Pair {
    /// In a sandbox for so many runs at once.
    pub(super) fn new(stand: &Stand<'_>, slots: usize) -> Result<Pair, Stopped> {
        let sandbox = Arc::new(worker::sandbox(stand.config, slots)?);
        let wasm = embedded::echo();
        let file = stand.place.join("echo.wasm");
        std::fs::write(&file, wasm).context("cannot write a plugin")?;
        let plugin = Plugin::from_file(&file, sandbox.clone(), &worker::plugin_rules(stand.config))
            .map_err(|refused| anyhow!("{}: {}", refused.file, refused.reason))?;
        let bare = Arc::new(Bare::new(&sandbox, wasm)?);
        Ok(Pair {
            sandbox,
            plugin,
            bare,
        })
    }

    /// A task with a payload of so many bytes.
    pub(super) fn task(&self, size: u64) -> Result<Task, Stopped> {
        let size = usize::try_from(size).map_err(|_| anyhow!("too large a payload"))?;
        Ok(Task {
            id: new_id(),
            plugin: "echo".parse().map_err(Stopped::usage)?,
            payload: vec![b'x'; size].into(),
            content_type: None,
            headers: Vec::new(),
            attempt: 1,
        })
    }

    /// Some runs at a time, on as many threads as the worker has.
    pub(super) async fn ours(
        &self,
        task: &Task,
        runs: u64,
        at_once: u64,
    ) -> Result<Spent, Stopped> {
        ours(&self.sandbox, &self.plugin, task, runs, at_once).await
    }

    /// As many on each of the same threads, one after the other.
    pub(super) async fn alone(&self, task: &Task, runs: u64) -> Result<Spent, Stopped> {
        let threads = self.sandbox.threads();
        let lanes = threads.metrics().num_workers() as u64;
        let (began, cpu) = (Instant::now(), process_time());
        let mut running = JoinSet::new();
        for lane in 0..lanes {
            let (bare, payload) = (self.bare.clone(), task.payload.clone());
            let lane = async move {
                for _ in 0..share(runs, lanes, lane) {
                    bare.run(&payload).await?;
                }
                Ok(())
            };
            running.spawn_on(lane, threads);
        }
        all(running, began, cpu).await
    }
}

/// How many of these runs are one lane's.
fn share(runs: u64, lanes: u64, lane: u64) -> u64 {
    runs / lanes + u64::from(lane < runs % lanes)
}

/// Waits for what runs since then.
async fn all(
    mut running: JoinSet<anyhow::Result<()>>,
    began: Instant,
    cpu: Duration,
) -> Result<Spent, Stopped> {
    while let Some(lane) = running.join_next().await {
        lane.context("a run of the bench panicked")??;
    }
    Ok(Spent {
        wall: began.elapsed(),
        cpu: process_time() - cpu,
    })
}

/// Some at a time, as a worker's attempts run: each on the guests' threads, and the next after it.
async fn ours(
    sandbox: &Arc<Sandbox>,
    plugin: &Arc<Plugin>,
    task: &Task,
    runs: u64,
    at_once: u64,
) -> Result<Spent, Stopped> {
    let (began, cpu) = (Instant::now(), process_time());
    let mut running = JoinSet::new();
    for lane in 0..at_once {
        let share = share(runs, at_once, lane);
        let (sandbox, plugin, task) = (sandbox.clone(), plugin.clone(), task.clone());
        let threads = sandbox.threads().clone();
        running.spawn_on(
            async move {
                let (observers, cancel) = (Observers::default(), Cancel::new());
                for _ in 0..share {
                    let job = Job {
                        prepared: &plugin.prepared,
                        task: &task,
                        grants: &plugin.manifest.grants,
                        limits: plugin.manifest.limits,
                        max_attempts: 1,
                    };
                    match sandbox.run(job, &observers, &cancel).await.outcome {
                        Outcome::Done(_) => {}
                        other => return Err(anyhow!("a run of the bench came to {other:?}")),
                    }
                    // As a settlement that is waited for does.
                    tokio::task::yield_now().await;
                }
                Ok(())
            },
            &threads,
        );
    }
    all(running, began, cpu).await
}
