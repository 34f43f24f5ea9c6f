//! From a submit to the start of its task in an idle worker, beside a bare publish and delivery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit, millis};
use super::signs::signs;
use super::{Stand, no_op, remove};
use crate::broker::rabbitmq::RabbitMqOptions;
use crate::broker::rabbitmq::baseline::Bare;
use crate::broker::sqlite::{SqliteOptions, baseline};
use crate::cli::Stopped;
use crate::cli::worker::Rig;
use crate::config::{BrokerConfig, Config};
use crate::event::Event;
use crate::worker::StopSwitch;

/// Tasks in each run, one after the other.
const TIMES: u64 = 500;

/// What becomes of a task.
enum Sign {
    Started(Instant),
    Settled,
}

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let times = stand.tasks(TIMES);
    let measured = stand
        .repeat("latency, embedded queue", async || {
            embedded(stand, times).await
        })
        .await?;
    let mut rows = compare("embedded queue", "SQLite alone", &measured);
    if let Some(options) = stand.rabbitmq() {
        let measured = stand
            .repeat("latency, RabbitMQ", async || {
                rabbitmq(stand, options, times).await
            })
            .await?;
        rows.extend(compare("RabbitMQ", "lapin alone", &measured));
    }
    Ok(rows)
}

/// Ours and the baseline's times, in milliseconds.
async fn embedded(stand: &Stand<'_>, times: u64) -> Result<(Figures, Figures), Stopped> {
    let config = stand.embedded()?;
    let BrokerConfig::Sqlite(options) = &config.broker else {
        unreachable!("an embedded queue was asked for");
    };
    let ours = submits(&config, times).await?;
    let queue = config.queues[0].clone();
    let bare = SqliteOptions {
        path: options.path.with_extension("bare.db"),
        ..options.clone()
    };
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    let bare = tokio::task::spawn_blocking(move || {
        baseline::publish_and_claim(&bare, &queue, &no_op(), times)
    });
    let bare = bare.await.map_err(anyhow::Error::from)??;
    Ok((figures(&ours), figures(&bare)))
}

async fn rabbitmq(
    stand: &Stand<'_>,
    options: &RabbitMqOptions,
    times: u64,
) -> Result<(Figures, Figures), Stopped> {
    let config = stand.on_rabbitmq(options)?;
    let ours = submits(&config, times).await;
    let bare = Bare::connect(options).await?;
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    let measured = bare
        .publish_to_deliver(&config.queues[0], &no_op().body, times)
        .await;
    // By another connection: RabbitMQ 3.10 fails where a channel deletes a queue that it still cancels.
    bare.close().await;
    remove(options, &config.queues[0]).await?;
    Ok((figures(&ours?), figures(&measured?)))
}

fn figures(took: &[Duration]) -> Figures {
    Figures::new(took.iter().copied().map(millis).collect())
}

fn compare(broker: &str, beside: &'static str, measured: &[(Figures, Figures)]) -> Vec<Row> {
    [("p50", 0.5, 1.0), ("p99", 0.99, 5.0)]
        .map(|(name, share, most)| {
            let ours = measured.iter().map(|(ours, _)| ours.quantile(share));
            let bare = measured.iter().map(|(_, bare)| bare.quantile(share));
            Row {
                bench: "latency",
                what: format!("{name} from submit to start, {broker}"),
                unit: Unit::Millis,
                ours: Figures::new(ours.collect()),
                beside: Some(Beside {
                    what: beside,
                    figures: Figures::new(bare.collect()),
                    by: Comparison::Difference,
                }),
                reach: Some(Reach::AtMost(most)),
            }
        })
        .into()
}

/// Submits one task after another to a worker that has nothing else to do. The first one is not counted: on
/// RabbitMQ it waits until its queue can be relied on, which happens once in a queue's life.
async fn submits(config: &Config, times: u64) -> Result<Vec<Duration>, Stopped> {
    let (observer, mut signs) = signs(|event| match event {
        Event::Started { .. } => Some(Sign::Started(Instant::now())),
        Event::Settled { .. } | Event::NotSettled { .. } => Some(Sign::Settled),
        _ => None,
    });
    let rig = Rig::build(config, vec![observer]).await?;
    let broker = Arc::clone(&rig.broker);
    let (switch, stop) = StopSwitch::new();
    let worker = tokio::spawn(rig.run(stop));
    let mut took = Vec::new();
    for number in 0..=times {
        let began = Instant::now();
        broker
            .publish(&config.queues[0], vec![no_op()], None)
            .await?;
        let mut settled = false;
        while !settled {
            match signs.recv().await.context("the worker ended")? {
                Sign::Started(_) if number == 0 => {}
                Sign::Started(at) => took.push(at.saturating_duration_since(began)),
                Sign::Settled => settled = true,
            }
        }
    }
    switch.drain();
    worker.await.context("the worker panicked")??;
    Ok(took)
}
