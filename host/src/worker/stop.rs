//! [`Stop`]: how a worker is told to end, in the steps that it ends in.

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
pub struct StopSwitch(watch::Sender<Phase>);

/// What a worker listens to.
#[derive(Clone, Debug)]
pub struct Stop {
    // Holding the sender too means that the channel never closes, and that the worker itself can go
    // from draining to interrupting.
    sender: watch::Sender<Phase>,
}

impl StopSwitch {
    /// A switch that has not been used, and what listens to it.
    pub fn new() -> (StopSwitch, Stop) {
        let (sender, _) = watch::channel(Phase::Working);
        (StopSwitch(sender.clone()), Stop { sender })
    }

    /// Take no more tasks and end once those that run are done or the grace period is over.
    pub fn drain(&self) {
        advance(&self.0, Phase::Draining);
    }

    /// End at once.
    pub fn end(&self) {
        advance(&self.0, Phase::Ending);
    }
}

impl Stop {
    /// Waits until no more tasks are to be taken. Cancel safe.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Whether no more tasks are to be taken.
    pub(super) fn is_draining(&self) -> bool {
        *self.sender.borrow() >= Phase::Draining
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
        *self.sender.borrow() == Phase::Ending
    }

    pub(super) fn interrupt(&self) {
        advance(&self.sender, Phase::Interrupting);
    }

    async fn reached(&self, phase: Phase) {
        let mut receiver = self.sender.subscribe();
        // An error would mean that every sender is gone, and one is held here.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}

/// Never back: a stop that was given stays given.
fn advance(sender: &watch::Sender<Phase>, to: Phase) {
    sender.send_if_modified(|now| {
        let forward = *now < to;
        if forward {
            *now = to;
        }
        forward
    });
}
