//! A worker that burns down a filled quorum queue, beside the client library alone on the same queue.

use super::burn::{Spent, burn, fill, prefetches};
use super::clock::process_time;
use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit};
use super::{Stand, no_op, remove};
use crate::broker::Broker;
use crate::broker::rabbitmq::baseline::Bare;
use crate::broker::rabbitmq::{RabbitMq, RabbitMqOptions};
use crate::cli::Stopped;
use crate::worker::prefetch::Prefetch;

const TASKS: u64 = 50_000;

pub(super) async fn measure(
    stand: &Stand<'_>,
    options: &RabbitMqOptions,
) -> Result<Vec<Row>, Stopped> {
    let mut rows = Vec::new();
    for prefetch in stand.prefetches() {
        rows.extend(of_prefetch(stand, options, prefetch).await?);
    }
    Ok(rows)
}

async fn of_prefetch(
    stand: &Stand<'_>,
    options: &RabbitMqOptions,
    prefetch: Prefetch,
) -> Result<Vec<Row>, Stopped> {
    let mut config = stand.on_rabbitmq(options)?;
    config.prefetch = prefetch;
    let queue = config.queues[0].clone();
    let tasks = stand.tasks(TASKS);
    let broker = RabbitMq::connect(options.clone(), std::sync::Arc::new(|_| {})).await?;
    let measured = stand
        .repeat("amqp", async || {
            fill(&broker, &queue, tasks, &no_op()).await?;
            let ours = burn(&config, tasks).await?;
            fill(&broker, &queue, tasks, &no_op()).await?;
            let bare = Bare::connect(options).await?;
            let cpu = process_time();
            // As many as the worker came to hold.
            let wall = bare.consume_and_ack(&queue, ours.prefetch, tasks).await?;
            let cpu = process_time() - cpu;
            bare.close().await;
            Ok((ours, Spent { wall, cpu }))
        })
        .await;
    broker.close().await;
    remove(options, &queue).await?;
    let measured = measured?;
    let of = |figure: fn(Spent, u64) -> f64| {
        let ours = measured.iter().map(|(ours, _)| figure(ours.spent, tasks));
        let bare = measured.iter().map(|(_, bare)| figure(*bare, tasks));
        (Figures::new(ours.collect()), Figures::new(bare.collect()))
    };
    let (rate, bare_rate) = of(Spent::per_second);
    let (cpu, bare_cpu) = of(Spent::cpu_each);
    let held = prefetches(measured.iter().map(|(ours, _)| ours.prefetch));
    // With more in hand, the library alone is bound by the processor, which it has for itself.
    let at_least = (prefetch != Prefetch::Automatic).then_some(Reach::AtLeast(0.5));
    Ok(vec![
        Row {
            bench: "amqp",
            what: format!("{tasks} no-op tasks from a filled queue, {held}"),
            unit: Unit::PerSecond,
            ours: rate,
            beside: Some(Beside {
                what: "lapin alone",
                figures: bare_rate,
                by: Comparison::Ratio,
            }),
            reach: at_least,
        },
        Row {
            bench: "amqp",
            what: "processor time of a task".to_owned(),
            unit: Unit::Micros,
            ours: cpu,
            beside: Some(Beside {
                what: "lapin alone",
                figures: bare_cpu,
                by: Comparison::Difference,
            }),
            reach: Some(Reach::AtMost(20.0)),
        },
    ])
}
