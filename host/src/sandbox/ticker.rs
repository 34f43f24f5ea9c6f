//! [`Ticker`]: advances the engine's epoch while guests execute, and rests while none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use wasmtime::Engine;

/// How far ticks are apart. Shorter costs more of them, of some microseconds each; longer is what others wait
/// for a guest that has run for a while.
pub(super) const SLICE: Duration = Duration::from_millis(1);

/// How many ticks in a row must find no guest executing before the ticker rests. Waking it costs
/// more than a tick, so it does not rest between the runs of a busy worker.
const IDLE_TICKS: u32 = 100;

/// A thread that ends guests' slices. It ends when this is dropped.
pub(super) struct Ticker {
    engine: Engine,
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

/// What the ticker and the guests tell each other.
#[derive(Default)]
pub(super) struct Pulse {
    /// Guests that execute at this moment.
    executing: AtomicUsize,
    /// The ticker rests until someone wakes it.
    rests: AtomicBool,
    ends: AtomicBool,
}

/// A guest executes for as long as this lives.
pub(super) struct Executing<'a>(&'a Ticker);

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(engine: Engine) -> anyhow::Result<Ticker> {
        let pulse = Arc::new(Pulse::default());
        let (ticking, shared) = (engine.clone(), Arc::clone(&pulse));
        let thread = thread::Builder::new()
            .name("scutwork-ticker".into())
            .spawn(move || shared.tick(&ticking))
            .context("cannot start the thread that ends guests' slices")?;
        Ok(Ticker {
            engine,
            pulse,
            thread: Some(thread),
        })
    }

    /// Says that a guest executes from now on.
    pub(super) fn executing(&self) -> Executing<'_> {
        self.pulse.executing.fetch_add(1, Ordering::SeqCst);
        if self.pulse.rests.load(Ordering::SeqCst) && self.pulse.rests.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
        Executing(self)
    }

    /// Ticks now, for somebody has come who may wait for a thread.
    pub(super) fn make_way(&self) {
        if self.pulse.executing() > 0 {
            self.engine.increment_epoch();
        }
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.pulse.executing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.ends.store(true, Ordering::SeqCst);
        self.pulse.rests.store(false, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It does nothing that panics, and there is nothing to do about it here.
            let _ = thread.join();
        }
    }
}

impl Pulse {
    /// Guests that execute at this moment.
    pub(super) fn executing(&self) -> usize {
        self.executing.load(Ordering::Relaxed)
    }

    fn tick(&self, engine: &Engine) {
        let mut idle = 0;
        while !self.ends.load(Ordering::SeqCst) {
            thread::park_timeout(SLICE);
            engine.increment_epoch();
            idle = match self.executing.load(Ordering::SeqCst) {
                0 => idle + 1,
                _ => 0,
            };
            if idle >= IDLE_TICKS {
                self.rest();
                idle = 0;
            }
        }
    }

    fn rest(&self) {
        self.rests.store(true, Ordering::SeqCst);
        // A guest that began before the line above did not see it, so it is looked for once more:
        // nobody else would wake this thread for its sake.
        if self.executing.load(Ordering::SeqCst) > 0 || self.ends.load(Ordering::SeqCst) {
            self.rests.store(false, Ordering::SeqCst);
        }
        while self.rests.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}
