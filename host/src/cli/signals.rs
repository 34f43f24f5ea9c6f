//! SIGTERM and Ctrl-C: the first asks a worker to stop, the second ends it at once.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output;
use crate::worker::StopSwitch;

/// Both signals, from when this is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub(super) fn new() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Signals {
            terminate,
            interrupt,
        })
    }

    /// Waits for either. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Turns the first signal into a drain and the second into an end. Never returns; drop it once
    /// the worker has ended.
    pub(super) async fn drive(mut self, switch: StopSwitch) {
        self.next().await;
        output::say("stopping; once more ends at once");
        switch.drain();
        self.next().await;
        switch.end();
        std::future::pending().await
    }
}
