//! One run of a plugin, beside what wasmtime alone takes for the same.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

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
const AT_ONCE: u64 = 16;

async fn of_size(
    stand: &Stand<'_>,
    what: &str,
    size: usize,
    runs: u64,
) -> Result<Vec<Row>, Stopped> {
    let sandbox = Arc::new(worker::sandbox(stand.config, stand.config.slots.get())?);
    let name = "echo".parse().map_err(Stopped::usage)?;
    let wasm = embedded::echo();
    let file = stand.place.join("echo.wasm");
    std::fs::write(&file, wasm).context("cannot write a plugin")?;
    let plugin = Plugin::from_file(&file, sandbox.clone(), &worker::plugin_rules(stand.config))
        .map_err(|refused| anyhow!("{}: {}", refused.file, refused.reason))?;
    let bare = Bare::new(&sandbox, wasm)?;
    let task = Task {
        id: new_id(),
        plugin: name,
        payload: vec![b'x'; size].into(),
        content_type: None,
        headers: Vec::new(),
        attempt: 1,
    };
    let measured = stand
        .repeat(&format!("sandbox, {what}"), async || {
            Ok((
                ours(&sandbox, &plugin, &task, runs).await?,
                alone(&bare, &task.payload, runs).await?,
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
    Ok(vec![row, rate])
}

/// Some runs at a time, as many threads as the worker has.
async fn ours(
    sandbox: &Sandbox,
    plugin: &Plugin,
    task: &Task,
    runs: u64,
) -> Result<Spent, Stopped> {
    let (observers, cancel) = (Observers::default(), Cancel::new());
    let (began, cpu) = (Instant::now(), process_time());
    let mut running = FuturesUnordered::new();
    let mut begun = 0;
    loop {
        while begun < runs && (running.len() as u64) < AT_ONCE {
            let job = Job {
                prepared: &plugin.prepared,
                task,
                grants: &plugin.manifest.grants,
                limits: plugin.manifest.limits,
                max_attempts: 1,
            };
            running.push(sandbox.run(job, &observers, &cancel));
            begun += 1;
        }
        match running.next().await {
            None => break,
            Some(finished) => match finished.outcome {
                Outcome::Done(_) => {}
                other => return Err(anyhow!("a run of the bench came to {other:?}").into()),
            },
        }
    }
    Ok(Spent {
        wall: began.elapsed(),
        cpu: process_time() - cpu,
    })
}

/// One after the other, on this thread.
async fn alone(bare: &Bare, payload: &[u8], runs: u64) -> Result<Spent, Stopped> {
    let (began, cpu) = (Instant::now(), process_time());
    for _ in 0..runs {
        bare.run(payload).await?;
    }
    Ok(Spent {
        wall: began.elapsed(),
        cpu: process_time() - cpu,
    })
}
