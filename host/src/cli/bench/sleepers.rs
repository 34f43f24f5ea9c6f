//! Very many tasks asleep at once in one worker.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Stand;
use super::burn::{Counter, fill};
use super::clock::resident_kib;
use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit, millis};
use crate::broker::Message;
use crate::cli::Stopped;
use crate::cli::worker::Rig;
use crate::config::Config;
use crate::worker::StopSwitch;
use crate::worker::prefetch::Prefetch;

const TASKS: u16 = 10_000;

/// How long each of them sleeps.
const SLEEP: Duration = Duration::from_secs(5);

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let tasks = if stand.quick { TASKS / 10 } else { TASKS };
    let measured = stand
        .repeat("sleepers", async || {
            let mut config = stand.embedded()?;
            config.slots =
                NonZeroUsize::from(std::num::NonZeroU16::new(tasks).context("there are sleepers")?);
            config.prefetch = Prefetch::Fixed(tasks);
            sleep(&config, tasks).await
        })
        .await?;
    let walls = measured.iter().map(|(wall, _)| millis(*wall));
    let memory: Vec<f64> = measured
        .iter()
        .filter_map(|(_, grown)| *grown)
        .map(|grown| grown as f64 / f64::from(tasks))
        .collect();
    let mut rows = vec![Row {
        bench: "sleepers",
        what: format!("{tasks} tasks of 5 s at once"),
        unit: Unit::Millis,
        ours: Figures::new(walls.collect()),
        beside: Some(Beside {
            what: "the sleep",
            figures: Figures::new(vec![millis(SLEEP)]),
            by: Comparison::Ratio,
        }),
        reach: Some(Reach::AtMost(1.2)),
    }];
    // Where the system does not tell, there is nothing to show.
    if !memory.is_empty() {
        rows.push(Row {
            bench: "sleepers",
            what: "memory of each".to_owned(),
            unit: Unit::Kib,
            ours: Figures::new(memory),
            beside: None,
            reach: Some(Reach::OursAtMost(64.0)),
        });
    }
    Ok(rows)
}

/// How long it took from the worker's start to the last task, and by how many KiB this process grew
/// until all were asleep.
async fn sleep(config: &Config, tasks: u16) -> Result<(Duration, Option<u64>), Stopped> {
    let counter = Counter::default();
    let rig = Rig::build(config, vec![Box::new(counter.clone())]).await?;
    let dots = Message {
        plugin: Some("dots".to_owned()),
        body: ".....".into(),
        ..Message::default()
    };
    fill(rig.broker.as_ref(), &config.queues[0], tasks.into(), &dots).await?;
    let before = resident_kib();
    let (switch, stop) = StopSwitch::new();
    let began = Instant::now();
    let worker = tokio::spawn(rig.run(stop));
    // One of five seconds is over then, for all of them.
    counter.under_way(tasks.into()).await;
    let grown = resident_kib()
        .zip(before)
        .map(|(now, before)| now.saturating_sub(before));
    let ended = counter.done(tasks.into()).await;
    let wall = began.elapsed();
    switch.drain();
    worker.await.context("the worker panicked")??;
    ended.map(|()| (wall, grown))
}
