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

const FEW: u64 = 10_000;
const MANY: u64 = 1_000_000;

/// Tasks that wait at once: the queue's own size is not what is looked for.
const AT_ONCE: u64 = 10_000;

pub(super) async fn measure(stand: &Stand<'_>) -> Result<Vec<Row>, Stopped> {
    let many = stand.tasks(MANY);
    let config = stand.embedded()?;
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
    let Some((few, many_kib)) = after_few.zip(after_many) else {
        return Ok(Vec::new());
    };
    Ok(vec![Row {
        bench: "soak",
        what: format!("memory after {many} tasks"),
        unit: Unit::Kib,
        ours: Figures::new(vec![many_kib as f64]),
        beside: Some(Beside {
            what: "after 10000",
            figures: Figures::new(vec![few as f64]),
            by: Comparison::Ratio,
        }),
        // The allocator and the queue's cache breathe by some per cent.
        reach: Some(Reach::AtMost(1.1)),
    }])
}
