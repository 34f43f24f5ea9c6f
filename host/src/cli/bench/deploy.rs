//! From a plugin's file dropped in to its first task, and the start of a worker that has a hundred plugins.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit, millis};
use super::signs::signs;
use super::{Stand, no_op};
use crate::broker::Message;
use crate::cli::Stopped;
use crate::cli::worker::Rig;
use crate::event::{Event, PluginEvent};
use crate::plugin::embedded;
use crate::plugin::registry::Directory;
use crate::worker::StopSwitch;

const PLUGINS: u32 = 100;

/// What becomes of the plugin that is dropped in, and of its task.
enum Sign {
    Compiled(Duration),
    Started(Instant),
}

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let dropped = stand
        // Like no other, lest it be in the cache from a bench before.
        .repeat("deploy", async || drop_in(stand, fastrand::u32(..)).await)
        .await?;
    let starts = stand.repeat("start", async || start(stand).await).await?;
    Ok(vec![
        Row {
            bench: "deploy",
            what: "from a file dropped in to its first task".to_owned(),
            unit: Unit::Millis,
            ours: Figures::new(dropped.iter().map(|(took, _)| millis(*took)).collect()),
            beside: Some(Beside {
                what: "compiling",
                figures: Figures::new(dropped.iter().map(|(_, it)| millis(*it)).collect()),
                by: Comparison::Difference,
            }),
            reach: Some(Reach::AtMost(200.0)),
        },
        Row {
            bench: "deploy",
            what: format!("start with {PLUGINS} plugins that were compiled before"),
            unit: Unit::Millis,
            ours: Figures::new(starts.into_iter().map(millis).collect()),
            beside: None,
            reach: Some(Reach::OursAtMost(500.0)),
        },
    ])
}

/// How long it took from the rename of the file to the start of its task, and how long of that it was
/// compiled.
async fn drop_in(stand: &Stand<'_>, number: u32) -> Result<(Duration, Duration), Stopped> {
    let config = stand.embedded()?;
    let Directory::Named(plugins) = &config.plugins else {
        unreachable!("a directory was named");
    };
    let (observer, mut signs) = signs(|event| match event {
        Event::Plugin(PluginEvent::Added {
            name, compiled_in, ..
        }) if name.as_str() == "fresh" => Some(Sign::Compiled(*compiled_in)),
        Event::Started { .. } => Some(Sign::Started(Instant::now())),
        _ => None,
    });
    let rig = Rig::build(&config, vec![observer]).await?;
    let task = Message {
        plugin: Some("fresh".to_owned()),
        ..no_op()
    };
    let broker = rig.broker.clone();
    let (switch, stop) = StopSwitch::new();
    let worker = tokio::spawn(rig.run(stop));
    let aside = plugins.join(".fresh");
    std::fs::write(&aside, unlike(number)).context("cannot write a plugin")?;
    let began = Instant::now();
    std::fs::rename(&aside, plugins.join("fresh.wasm")).context("cannot drop a plugin in")?;
    broker.publish(&config.queues[0], vec![task], None).await?;
    // In whichever order: the task may start before it is told that its plugin serves.
    let (mut compiled, mut started) = (None, None);
    while compiled.is_none() || started.is_none() {
        match signs.recv().await.context("the worker ended")? {
            Sign::Compiled(took) => compiled = Some(took),
            Sign::Started(at) => started = Some(at),
        }
    }
    switch.drain();
    worker.await.context("the worker panicked")??;
    let (compiled, started) = compiled.zip(started).context("the worker ended")?;
    Ok((started.saturating_duration_since(began), compiled))
}

/// How long a worker takes until it could take tasks.
async fn start(stand: &Stand<'_>) -> Result<Duration, Stopped> {
    let config = stand.embedded()?;
    let Directory::Named(plugins) = &config.plugins else {
        unreachable!("a directory was named");
    };
    for number in 0..PLUGINS {
        // The same in every run, so that the first compiles them for all.
        let file = plugins.join(format!("cached-{number}.wasm"));
        std::fs::write(file, unlike(1_000_000 + number)).context("cannot write a plugin")?;
    }
    let began = Instant::now();
    let rig = Rig::build(&config, Vec::new()).await?;
    let took = began.elapsed();
    let (switch, stop) = StopSwitch::new();
    switch.drain();
    rig.run(stop).await?;
    Ok(took)
}

/// A plugin whose bytes are like no other's: with a custom section of its own at the end.
fn unlike(number: u32) -> Vec<u8> {
    let mut wasm = embedded::echo().to_vec();
    // Section 0, of six bytes: a name of one byte, and the number.
    wasm.extend([0, 6, 1, b'n']);
    wasm.extend(number.to_le_bytes());
    wasm
}
