//! How late tasks start that were submitted with a delay.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc::UnboundedReceiver;

use super::figures::{Figures, Reach, Row, Unit, millis};
use super::signs::signs;
use super::{Stand, no_op, remove};
use crate::broker::{Broker, Message};
use crate::cli::Stopped;
use crate::cli::worker::Rig;
use crate::config::Config;
use crate::event::Event;
use crate::name::QueueName;
use crate::task::new_id;
use crate::worker::StopSwitch;

/// Tasks in each run, submitted one after the other.
const TIMES: u64 = 100;

/// On RabbitMQ it takes each of the four shortest delay queues.
const DELAY: Duration = Duration::from_millis(3_750);

/// How late a task may be, as README says.
const MOST: Duration = Duration::from_secs(1);

/// A task starts.
struct Started {
    id: String,
    at: Instant,
}

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let times = stand.tasks(TIMES);
    let measured = stand
        .repeat("delays, embedded queue", async || {
            lateness(&stand.embedded()?, times).await
        })
        .await?;
    let mut rows = rows("embedded queue", &measured).to_vec();
    if let Some(options) = stand.rabbitmq() {
        let config = stand.on_rabbitmq(options)?;
        let measured = stand
            .repeat("delays, RabbitMQ", async || lateness(&config, times).await)
            .await;
        remove(options, &config.queues[0]).await?;
        rows.extend(self::rows("RabbitMQ", &measured?));
    }
    Ok(rows)
}

fn rows(broker: &str, measured: &[Figures]) -> [Row; 2] {
    let row = |what, share, reach| Row {
        bench: "delays",
        what: format!("{what} that a task was late after {DELAY:?}, {broker}"),
        unit: Unit::Millis,
        ours: Figures::new(measured.iter().map(|late| late.quantile(share)).collect()),
        beside: None,
        reach,
    };
    let most = Reach::OursAtMost(millis(MOST));
    [row("median", 0.5, None), row("most", 1.0, Some(most))]
}

/// By how many milliseconds each task started too late, which is counted from before it was submitted. The
/// first one does not count: on RabbitMQ it waits until the queues that it goes through can be relied on.
async fn lateness(config: &Config, times: u64) -> Result<Figures, Stopped> {
    let (observer, mut started) = signs(|event| match event {
        Event::Started { run, .. } => Some(Started {
            id: run.task.to_owned(),
            at: Instant::now(),
        }),
        _ => None,
    });
    let rig = Rig::build(config, vec![observer]).await?;
    let broker = rig.broker.clone();
    let (switch, stop) = StopSwitch::new();
    let worker = tokio::spawn(rig.run(stop));
    let measured = async {
        let queue = &config.queues[0];
        submit(broker.as_ref(), queue, &mut started, 1).await?;
        submit(broker.as_ref(), queue, &mut started, times).await
    };
    let measured = measured.await;
    switch.drain();
    worker.await.context("the worker panicked")??;
    Ok(Figures::new(measured?))
}

/// Submits so many tasks, and waits until all have started.
async fn submit(
    broker: &dyn Broker,
    queue: &QueueName,
    started: &mut UnboundedReceiver<Started>,
    times: u64,
) -> Result<Vec<f64>, Stopped> {
    let mut due = HashMap::new();
    for _ in 0..times {
        let id = new_id();
        let task = Message {
            id: Some(id.clone()),
            ..no_op()
        };
        due.insert(id, Instant::now() + DELAY);
        broker.publish(queue, vec![task], Some(DELAY)).await?;
    }
    let mut late = Vec::new();
    while !due.is_empty() {
        let Started { id, at } = started.recv().await.context("the worker ended")?;
        if let Some(due) = due.remove(&id) {
            late.push(millis(at.saturating_duration_since(due)));
        }
    }
    Ok(late)
}
