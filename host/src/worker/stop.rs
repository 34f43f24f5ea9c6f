//! [`Stop`]: how a worker is told to end, in the steps that it ends in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Working,
    Draining,
    Interrupting,
    Ending,
}

/// Tells a worker to stop; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct StopSwitch(Arc<Signal>);

/// What a worker listens to.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Signal>);

/// What both have. Each holding the sender means that the channel never closes, and that the worker itself can go
/// from draining to interrupting.
#[derive(Debug)]
struct Signal {
    phase: watch::Sender<Phase>,
    /// The same, for every task that begins to ask: the channel would lock what is in it.
    is_draining: AtomicBool,
}

impl StopSwitch {
    /// A switch that has not been used, and what listens to it.
    pub fn new() -> (StopSwitch, Stop) {
        let signal = Arc::new(Signal {
            phase: watch::Sender::new(Phase::Working),
            is_draining: AtomicBool::new(false),
        });
        (StopSwitch(signal.clone()), Stop(signal))
    }

    /// Take no more tasks and end once those that run are done or the grace period is over.
    pub fn drain(&self) {
        self.0.advance(Phase::Draining);
    }

    /// End at once.
    pub fn end(&self) {
        self.0.advance(Phase::Ending);
    }
}

impl Stop {
    /// Waits until no more tasks are to be taken. Cancel safe.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Whether no more tasks are to be taken.
    pub(super) fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Acquire)
    }

    /// Waits until running tasks are to be given back. Cancel safe.
    pub(super) async fn interrupted(&self) {
        self.reached(Phase::Interrupting).await;
    }

    /// Waits until the worker is to end at once. Cancel safe.
    pub async fn ending(&self) {
        self.reached(Phase::Ending).await;
    }

    /// Whether the worker was told to end at once.
    pub fn is_ending(&self) -> bool {
        *self.0.phase.borrow() == Phase::Ending
    }

    pub(super) fn interrupt(&self) {
        self.0.advance(Phase::Interrupting);
    }

    async fn reached(&self, phase: Phase) {
        let mut receiver = self.0.phase.subscribe();
        // An error would mean that every sender is gone, and one is held here.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}

impl Signal {
    /// Never back: a stop that was given stays given.
    fn advance(&self, to: Phase) {
        self.is_draining.store(true, Ordering::Release);
        self.phase.send_if_modified(|now| {
            let forward = *now < to;
            if forward {
                *now = to;
            }
            forward
        });
    }
}
