//! Trials: the suspects of one queue, each run while its worker runs nothing else, as far as that can be
//! had, so that a crash is its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::attempt;
use super::places::Company;
use super::{Shared, report_panic};
use crate::broker::{Delivery, Suspects};
use crate::name::QueueName;
use crate::semaphore::{Permits, Semaphore};

/// How long a trial waits for the tasks that run to end, while no other starts. Then it goes on beside
/// those that are left: they have shown for this long that they kill nobody.
const QUIET_WITHIN: Duration = Duration::from_secs(10);

/// For how long nothing else starts beside a trial. What kills workers does so early, and a long task
/// that only happened to be there must not stop all others.
const ALONE_FOR: Duration = Duration::from_secs(10);

/// Tries suspects until the worker takes no more tasks.
pub(super) async fn hold(shared: Arc<Shared>, queue: QueueName, mut suspects: Box<dyn Suspects>) {
    loop {
        tokio::select! {
            () = shared.stop.draining() => return,
            () = suspects.waiting() => {}
        }
        // First quiet, then fetch: a suspect that waited here would be blamed for its neighbours' deeds.
        let (_dock, mut quiet) = tokio::select! {
            () = shared.stop.draining() => return,
            alone = be_alone(&shared) => alone,
        };
        let began = Instant::now();
        while let Some(suspect) = suspects.take().await {
            try_one(&shared, &queue, suspect, &mut quiet).await;
            if began.elapsed() >= ALONE_FOR || shared.stop.is_draining() {
                break;
            }
        }
    }
}

/// Holds the dock, and then every slot once all tasks have ended, or one slot if some take too long.
async fn be_alone(shared: &Shared) -> (Permits<&Semaphore>, Permits<&Semaphore>) {
    let dock = Semaphore::acquire(&shared.dock).await;
    let all = Semaphore::acquire_many(&shared.slots, shared.settings.slots);
    let slots = match tokio::time::timeout(QUIET_WITHIN, all).await {
        Ok(slots) => slots,
        Err(_) => Semaphore::acquire(&shared.slots).await,
    };
    (dock, slots)
}

async fn try_one(
    shared: &Arc<Shared>,
    queue: &QueueName,
    suspect: Delivery,
    quiet: &mut Permits<&Semaphore>,
) {
    let is_bounded = is_bounded(shared, &suspect);
    let mut trial = JoinSet::new();
    trial.spawn(attempt::run_and_settle(
        shared.clone(),
        queue.clone(),
        suspect,
        Company::Nobody,
    ));
    let ended = tokio::select! {
        ended = trial.join_next() => ended,
        () = tokio::time::sleep(ALONE_FOR), if !is_bounded => {
            quiet.keep_one();
            trial.join_next().await
        }
    };
    if let Some(ended) = ended {
        report_panic(ended);
    }
}

/// Whether its plugin may run only so often at once: a trial does not wait at that gate, because whoever
/// passed it may be waiting for a slot, so all others have to wait for the trial.
fn is_bounded(shared: &Shared, suspect: &Delivery) -> bool {
    let named = suspect.message.plugin.as_deref();
    let named = named.unwrap_or(shared.settings.rules.default_plugin.as_str());
    named
        .parse()
        .ok()
        .and_then(|name| shared.registry.get(&name))
        .is_some_and(|plugin| plugin.manifest.concurrency.is_some())
}
