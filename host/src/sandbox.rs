//! [`Sandbox`]: runs plugins, each run in a fresh instance that is limited and ends with it. It knows
//! no manifest, queue or retry.

pub mod baseline;
mod bounds;
mod breach;
mod cancel;
pub mod command;
pub mod compile;
mod contract;
mod control;
mod diagnosis;
mod engine;
pub mod grants;
mod guest;
mod http;
pub mod limits;
mod load;
mod log;
mod memory;
mod meter;
mod prepare;
mod random;
mod run;
mod secret;
mod slices;
mod stdio;
mod ticker;
mod verdict;
mod voice;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use wasmtime::Engine;

pub use self::cancel::Cancel;
use self::compile::NativeCode;
pub use self::grants::Grants;
use self::guest::Linkers;
use self::http::Network;
pub use self::http::Origin;
pub use self::limits::Limits;
pub use self::prepare::{PrepareError, Prepared};
use self::run::{GuestRun, unequipped};
use self::ticker::Ticker;
use self::voice::{Bounds, Voice};
use crate::event::Observers;
use crate::outcome::{Outcome, Usage};
use crate::semaphore::{Permits, Semaphore};
use crate::task::Task;

/// After how many polls a guest thread looks at timers and sockets. A guest that computes takes a whole
/// slice a poll, so the usual 61 would let sleepers oversleep by far.
const POLLS_BETWEEN_EVENTS: u32 = 4;

/// Where plugins run. Share it in an `Arc`; dropping it ends every run.
pub struct Sandbox {
    house: Arc<House>,
    linkers: Linkers,
    without_pool: Option<String>,
    /// Guests' own threads. `None` only while it is dropped.
    threads: Option<Runtime>,
}

/// What every run of a sandbox shares, and the last one outlives the sandbox.
struct House {
    engine: Engine,
    network: Arc<Network>,
    /// Guests yield only while it ticks.
    ticker: Ticker,
    slots: Arc<Semaphore>,
    ceiling: Limits,
}

/// What a sandbox is made to hold.
#[derive(Clone, Copy, Debug)]
pub struct SandboxSettings {
    /// Runs at once; more wait.
    pub slots: usize,
    /// The most that any run may have, whatever its own limits say.
    pub ceiling: Limits,
    /// Threads that execute guests.
    pub threads: usize,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The plugin.
    pub prepared: &'a Prepared,
    /// The task, handed to the plugin.
    pub task: &'a Task,
    /// What the plugin is granted.
    pub grants: &'a Arc<Grants>,
    /// What the run may use; the sandbox's ceiling holds all the same.
    pub limits: Limits,
    /// How many attempts the task has, for the plugin to know.
    pub max_attempts: u32,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What it meant.
    pub outcome: Outcome,
    /// What it cost.
    pub usage: Usage,
}

impl Sandbox {
    /// Makes the engine, and starts the threads.
    ///
    /// # Errors
    /// When the system gives no threads or no memory for them.
    pub fn new(settings: &SandboxSettings) -> anyhow::Result<Sandbox> {
        let made = engine::make(settings)?;
        let linkers = Linkers::new(&made.engine)
            .map_err(|error| anyhow!("cannot link the host's functions: {error:#}"))?;
        let ticker = Ticker::start(made.engine.clone())?;
        let threads = Builder::new_multi_thread()
            .worker_threads(settings.threads.max(1))
            .thread_name("scutwork-guest")
            .event_interval(POLLS_BETWEEN_EVENTS)
            // What came from other threads goes before a guest's next slice.
            .global_queue_interval(1)
            .enable_all()
            .build()
            .context("cannot start the threads that run plugins")?;
        let house = House {
            engine: made.engine,
            network: Arc::default(),
            ticker,
            slots: Arc::new(Semaphore::new(settings.slots.max(1))),
            ceiling: settings.ceiling,
        };
        Ok(Sandbox {
            house: Arc::new(house),
            linkers,
            without_pool: made.without_pool,
            threads: Some(threads),
        })
    }

    /// Why instances are made one by one rather than taken from a pool, which costs each run more.
    /// None: there is a pool.
    pub fn without_pool(&self) -> Option<&str> {
        self.without_pool.as_deref()
    }

    /// Whether these bytes look like a plugin, by the first of them alone: what does not need not
    /// meet the compiler.
    ///
    /// # Errors
    /// What they are instead.
    pub fn look(wasm: &[u8]) -> Result<(), PrepareError> {
        prepare::look(wasm).map(|_| ())
    }

    /// Loads what was compiled for [`Sandbox::target`], and links its imports.
    ///
    /// # Errors
    /// When it does not become a plugin; the error says why, and what to do.
    pub fn load(&self, code: &NativeCode) -> Result<Prepared, PrepareError> {
        prepare::link(&self.linkers, &load::load(&self.house.engine, code)?)
    }

    /// Compiles and loads a plugin in this very process. It blocks for as long as that takes, and
    /// nothing bounds it: for plugins that one has written oneself.
    ///
    /// # Errors
    /// When these bytes do not become a plugin; the error says why, and what to do.
    pub fn prepare(&self, wasm: &[u8]) -> Result<Prepared, PrepareError> {
        self.load(&compile::compile(&self.house.engine, wasm)?)
    }

    /// The guests' own threads. What is spawned there runs its plugins without a change of threads,
    /// which costs as much as a short run; it shares them with guests, which hold one for a slice at a
    /// time.
    pub fn threads(&self) -> &Handle {
        let threads = self.threads.as_ref().expect("taken only by drop");
        threads.handle()
    }

    /// Has guests that have run for some milliseconds let others have their threads at once, rather than
    /// when their slices end. For whoever has just spawned something on [`Sandbox::threads`].
    pub fn make_way(&self) {
        self.house.ticker.make_way();
    }

    /// Runs a plugin on a task, on the guests' own threads, once a slot is free.
    ///
    /// `cancel` is a wish that the guest may look at; it does not end the run. Dropping the call does:
    /// the guest ends wherever it is, within a slice of a few thousandths of a second unless it is in a host
    /// call that does not wait, and its slot is free when it is gone.
    pub async fn run(&self, job: Job<'_>, observers: &Observers, cancel: &Cancel) -> Finished {
        let limits = job.limits.under(&self.house.ceiling);
        let bounds = Bounds::of(&limits, &self.house.ceiling);
        let voice = Arc::new(Voice::new(
            job.task,
            observers.clone(),
            cancel.clone(),
            bounds,
        ));
        let is_here = Handle::try_current().is_ok_and(|here| here.id() == self.threads().id());
        if is_here {
            let _slot = Semaphore::acquire(&*self.house.slots).await;
            let run = GuestRun {
                house: &self.house,
                prepared: job.prepared,
                task: job.task,
                voice: &voice,
                grants: job.grants,
                limits,
                max_attempts: job.max_attempts,
            };
            // A panic would end whatever else the caller does in its future.
            return match AssertUnwindSafe(run.finish()).catch_unwind().await {
                Ok(finished) => finished,
                Err(panic) => panicked(panic),
            };
        }
        let slot = Semaphore::acquire(Arc::clone(&self.house.slots)).await;
        let run = SentRun {
            house: Arc::clone(&self.house),
            prepared: job.prepared.clone(),
            task: job.task.clone(),
            voice,
            grants: Arc::clone(job.grants),
            limits,
            max_attempts: job.max_attempts,
            _slot: slot,
        };
        let run = EndOnDrop(self.threads().spawn(run.finish()));
        self.make_way();
        match run.wait().await {
            Ok(finished) => finished,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => panicked(panic),
                // The sandbox was dropped.
                Err(_) => Finished {
                    outcome: Outcome::Interrupted,
                    usage: Usage::default(),
                },
            },
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // Waiting for the threads is not allowed where a caller's own runtime drops this.
            threads.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("ceiling", &self.house.ceiling)
            .field("without_pool", &self.without_pool)
            .finish_non_exhaustive()
    }
}

/// What became of a run that a fault of the host's ended.
fn panicked(panic: Box<dyn Any + Send>) -> Finished {
    let said = said_in_panic(&*panic);
    unequipped(format!(
        "the host panicked in a call that the plugin made: {said}"
    ))
}

/// What a panic that was caught said.
pub(crate) fn said_in_panic(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}

/// A spawned run that ends when nobody waits for it any more.
struct EndOnDrop(JoinHandle<Finished>);

impl EndOnDrop {
    async fn wait(mut self) -> Result<Finished, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A run on its way to the guests' threads. Fields are dropped in this order, the slot last of all.
struct SentRun {
    house: Arc<House>,
    prepared: Prepared,
    task: Task,
    voice: Arc<Voice>,
    grants: Arc<Grants>,
    limits: Limits,
    max_attempts: u32,
    _slot: Permits<Arc<Semaphore>>,
}

impl SentRun {
    async fn finish(self) -> Finished {
        let run = GuestRun {
            house: &self.house,
            prepared: &self.prepared,
            task: &self.task,
            voice: &self.voice,
            grants: &self.grants,
            limits: self.limits,
            max_attempts: self.max_attempts,
        };
        run.finish().await
    }
}
