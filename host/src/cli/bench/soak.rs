//! Memory after very many tasks, beside that after a few: one long run, of which the few are the warm-up.

use anyhow::Context;

use super::Stand;
use super::burn::{Counter, fill};
use super::clock::resident_kib;
use super::figures::{Beside, Comparison, Figures, Reach, Row, Unit};
use super::no_op;
use crate::cli::Stopped;
use crate::cli::worker::Rig;
use crate::worker::StopSwitch;
use crate::worker::prefetch::Prefetch;

const FEW: u64 = 10_000;
const MANY: u64 = 1_000_000;

/// Tasks that wait at once: the queue's own size is not what is looked for.
const AT_ONCE: u64 = 10_000;

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let mut rows = Vec::new();
    for prefetch in stand.prefetches() {
        rows.extend(of_prefetch(stand, prefetch).await?);
    }
    Ok(rows)
}

async fn of_prefetch(stand: &Stand<'_>, prefetch: Prefetch) -> Result<Option<Row>, Stopped> {
    let many = stand.tasks(MANY);
    let mut config = stand.embedded()?;
    config.prefetch = prefetch;
    let counter = Counter::default();
    let rig = Rig::build(&config, vec![Box::new(counter.clone())]).await?;
    let broker = rig.broker.clone();
    let (switch, stop) = StopSwitch::new();
    let worker = tokio::spawn(rig.run(stop));
    let mut after_few = None;
    let mut done = 0;
    while done < many {
        fill(broker.as_ref(), &config.queues[0], AT_ONCE, &no_op()).await?;
        done += AT_ONCE;
        counter.done(done).await?;
        if done == FEW {
            after_few = resident_kib();
        }
    }
    let after_many = resident_kib();
    switch.drain();
    worker.await.context("the worker panicked")??;
    // Where the system does not tell, there is nothing to show.
    let row = |(few, many_kib): (u64, u64)| Row {
        bench: "soak",
        what: match prefetch {
            Prefetch::Fixed(prefetch) => format!("memory after {many} tasks, prefetch {prefetch}"),
            Prefetch::Automatic => format!("memory after {many} tasks, prefetch automatic"),
        },
        unit: Unit::Kib,
        ours: Figures::new(vec![many_kib as f64]),
        beside: Some(Beside {
            what: "after 10000",
            figures: Figures::new(vec![few as f64]),
            by: Comparison::Ratio,
        }),
        // The allocator and the queue's cache breathe by some per cent. What decides how much to hold has not
        // decided yet after the few.
        reach: (prefetch != Prefetch::Automatic).then_some(Reach::AtMost(1.1)),
    };
    Ok(after_few.zip(after_many).map(row))
}
