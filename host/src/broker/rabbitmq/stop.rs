//! [`Stop`]: how a loop hears that it is to end.

use tokio::sync::watch;

/// Ends a loop when it is asked to, and when it is dropped.
pub(super) struct Switch(watch::Sender<bool>);

/// The loop's end of a [`Switch`].
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

/// A switch, and what it switches.
pub(super) fn switch() -> (Switch, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Switch(sender), Stop(receiver))
}

impl Switch {
    pub(super) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    pub(super) fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the loop is to end. Cancel safe.
    pub(super) async fn asked(&mut self) {
        // An error means that the switch was dropped.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
