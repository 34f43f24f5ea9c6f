//! A worker that burns down a filled embedded queue, beside the database alone.

use super::Stand;
use super::burn::{burn, fill, prefetches};
use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit};
use super::no_op;
use crate::broker::Broker;
use crate::broker::sqlite::{Sqlite, SqliteOptions, baseline};
use crate::cli::Stopped;
use crate::config::BrokerConfig;
use crate::worker::prefetch::Prefetch;

const TASKS: u64 = 200_000;

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let mut rows = Vec::new();
    for prefetch in stand.prefetches() {
        rows.extend(of_prefetch(stand, prefetch).await?);
    }
    Ok(rows)
}

async fn of_prefetch(stand: &Stand<'_>, prefetch: Prefetch) -> Result<Vec<Row>, Stopped> {
    let tasks = stand.tasks(TASKS);
    let measured = stand
        .repeat("sqlite", async || {
            let mut config = stand.embedded()?;
            config.prefetch = prefetch;
            let queue = &config.queues[0];
            let BrokerConfig::Sqlite(options) = &config.broker else {
                unreachable!("an embedded queue was asked for");
            };
            let broker = Sqlite::open(options.clone(), std::sync::Arc::new(|_| {}))?;
            fill(&broker, queue, tasks, &no_op()).await?;
            broker.close().await;
            let ours = burn(&config, tasks).await?;
            let bare = SqliteOptions {
                path: options.path.with_extension("bare.db"),
                ..options.clone()
            };
            // While one half of a prefetch is written, the other half runs: a worker that is never
            // short of work has no more than that in a transaction.
            let (queue, batch) = (queue.clone(), usize::from(ours.prefetch / 2).max(1));
            let tasks = usize::try_from(tasks).unwrap_or(usize::MAX);
            let bare = tokio::task::spawn_blocking(move || {
                baseline::claim_and_complete(&bare, &queue, &no_op(), tasks, batch)
            });
            let bare = bare.await.map_err(anyhow::Error::from)??;
            Ok((ours, bare))
        })
        .await?;
    let ours = measured
        .iter()
        .map(|(ours, _)| ours.spent.per_second(tasks));
    let bare = measured
        .iter()
        .map(|(_, bare)| tasks as f64 / bare.as_secs_f64());
    let rate = Figures::new(ours.collect());
    let cpu = measured.iter().map(|(ours, _)| ours.spent.cpu_each(tasks));
    let held = prefetches(measured.iter().map(|(ours, _)| ours.prefetch));
    // With more in a transaction, the database alone takes less for a message than a run takes.
    let at_least = (prefetch != Prefetch::Automatic).then_some(Reach::AtLeast(0.8));
    let row = |what: String, unit, ours, beside, reach| Row {
        bench: "sqlite",
        what,
        unit,
        ours,
        beside,
        reach,
    };
    Ok(vec![
        row(
            format!("{tasks} no-op tasks from a filled queue, {held}"),
            Unit::PerSecond,
            rate.clone(),
            Some(Beside {
                what: "SQLite alone",
                figures: Figures::new(bare.collect()),
                by: Comparison::Ratio,
            }),
            at_least,
        ),
        row(
            "the same".to_owned(),
            Unit::PerSecond,
            rate,
            None,
            Some(Reach::OursAtLeast(20_000.0)),
        ),
        row(
            "processor time of a task".to_owned(),
            Unit::Micros,
            Figures::new(cpu.collect()),
            None,
            None,
        ),
    ])
}
