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
mod secret;
mod slices;
mod stdio;
mod ticker;
mod verdict;
mod voice;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use scutwork_wasi::Held;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use wasmtime::{Engine, Store};
use wasmtime_wasi::I32Exit;

use self::breach::Breach;
pub use self::cancel::Cancel;
use self::command::CommandCall;
use self::compile::NativeCode;
use self::contract::exports::scutwork::task::handler;
use self::grants::Environment;
pub use self::grants::Grants;
use self::guest::{Guest, Linkers, Surroundings};
use self::http::Network;
pub use self::http::Origin;
pub use self::limits::Limits;
use self::meter::{Ended, Metered};
pub use self::prepare::{PrepareError, Prepared};
use self::prepare::{Runnable, START};
use self::ticker::Ticker;
use self::verdict::{Circumstances, Ending};
use self::voice::{Bounds, Voice};
use crate::event::Observers;
use crate::outcome::{Failure, Limit, Outcome, Usage};
use crate::task::Task;

/// After how many polls a guest thread looks at timers and sockets. A guest that computes takes a whole
/// slice a poll, so the usual 61 would let sleepers oversleep by far.
const POLLS_BETWEEN_EVENTS: u32 = 4;

/// Why waiting for a slot cannot fail.
const OPEN: &str = "nobody closes the semaphore";

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
            slots: Arc::new(Semaphore::new(
                settings.slots.clamp(1, Semaphore::MAX_PERMITS),
            )),
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
            let _slot = self.house.slots.acquire().await.expect(OPEN);
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
        let slot = Arc::clone(&self.house.slots)
            .acquire_owned()
            .await
            .expect(OPEN);
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
    _slot: OwnedSemaphorePermit,
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

/// One run on the guests' threads.
struct GuestRun<'a> {
    house: &'a House,
    prepared: &'a Prepared,
    task: &'a Task,
    voice: &'a Arc<Voice>,
    grants: &'a Arc<Grants>,
    limits: Limits,
    max_attempts: u32,
}

impl GuestRun<'_> {
    async fn finish(self) -> Finished {
        let began = Instant::now();
        let Environment { variables, secrets } = match self.grants.environment() {
            Ok(environment) => environment,
            Err(reason) => return unequipped(reason),
        };
        if !secrets.is_empty() {
            self.voice.keep(secrets.clone());
        }
        let breach = Breach::default();
        let command = self.command();
        let surroundings = Surroundings {
            voice: self.voice,
            limits: &self.limits,
            breach: &breach,
            grants: self.grants,
            network: &self.house.network,
            ticker: &self.house.ticker,
            variables,
            command: command.as_ref(),
        };
        let mut store = match Guest::store(&self.house.engine, surroundings) {
            Ok(store) => store,
            Err(error) => return unequipped(format!("{error:#}")),
        };
        let mut usage = Usage::default();
        let ended = {
            let call = pin!(self.call(&mut store));
            let mut call = Metered::new(call, &self.house.ticker, self.limits.cpu, &breach);
            let ended = tokio::time::timeout(self.limits.timeout, &mut call).await;
            usage.cpu = call.spent();
            ended
        };
        usage.wall = began.elapsed();
        usage.peak_memory = Guest::of(store.data()).memory().peak();
        let refused = Guest::of(store.data()).memory().refused();
        let stderr = self.voice.finish();
        let ending = match ended {
            Ok(Ended::Returned(Ok(Called::Returned(result)))) => Ending::Returned(Ok(result)),
            Ok(Ended::Returned(Ok(Called::Exited(code)))) => match &command {
                Some(call) => self.exited(call, code, refused, &stderr),
                None => Ending::Returned(Err(I32Exit(code.cast_signed()).into())),
            },
            Ok(Ended::Returned(Err(_))) if command.is_some_and(|call| call.stdout.is_over()) => {
                Ending::Limited(Limit::Output)
            }
            Ok(Ended::Returned(Err(error))) => Ending::Returned(Err(error)),
            Ok(Ended::Limited(limit)) => Ending::Limited(limit),
            Err(_) => Ending::Limited(Limit::Timeout),
        };
        let circumstances = Circumstances {
            plugin: &self.task.plugin,
            limits: &self.limits,
            ceiling: &self.house.ceiling,
            was_cancelled: self.voice.is_cancelled(),
            refused,
            stderr,
            usage,
        };
        Finished {
            outcome: secrets.hide_in(circumstances.outcome(ending)),
            usage,
        }
    }

    /// How the task is handed over, if the plugin is a command.
    fn command(&self) -> Option<CommandCall> {
        self.prepared.is_command().then(|| {
            CommandCall::new(
                &self.grants.command,
                self.task,
                &self.limits,
                self.max_attempts,
            )
        })
    }

    fn exited(
        &self,
        call: &CommandCall,
        code: u32,
        refused: Option<Limit>,
        stderr: &str,
    ) -> Ending {
        let result = call.result(&self.grants.command, code, stderr);
        match (result, refused) {
            // A program that is short of memory exits as one that was given nonsense does.
            (Err(handler::Failure::Reject(_)), Some(limit)) => Ending::Limited(limit),
            (result, _) => Ending::Returned(Ok(result)),
        }
    }

    async fn call(&self, store: &mut Store<Held>) -> wasmtime::Result<Called> {
        let called = match &*self.prepared.0 {
            Runnable::Plugin(plugin) => {
                let plugin = plugin.instantiate_async(&mut *store).await?;
                return self.handle(store, &plugin).await.map(Called::Returned);
            }
            Runnable::Command(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                let called = command.wasi_cli_run().call_run(store).await;
                called.map(|result| result.map_or(1, |()| 0))
            }
            Runnable::Module(module) => {
                let module = module.instantiate_async(&mut *store).await?;
                let start = module.get_typed_func::<(), ()>(&mut *store, START)?;
                start.call_async(store, ()).await.map(|()| 0)
            }
        };
        match called {
            Ok(code) => Ok(Called::Exited(code)),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => Ok(Called::Exited(code.cast_unsigned())),
                None => Err(error),
            },
        }
    }

    async fn handle(
        &self,
        store: &mut Store<Held>,
        plugin: &contract::Plugin,
    ) -> wasmtime::Result<Result<handler::Output, handler::Failure>> {
        let task = self.task;
        let headers: Vec<(&str, &str)> = task
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let task = handler::Task {
            id: &task.id,
            plugin: task.plugin.as_str(),
            payload: &task.payload,
            content_type: task.content_type.as_deref(),
            headers: &headers,
            attempt: task.attempt,
            max_attempts: self.max_attempts,
            timeout_ms: u32::try_from(self.limits.timeout.as_millis()).unwrap_or(u32::MAX),
        };
        plugin
            .scutwork_task_handler()
            .call_handle(store, task)
            .await
    }
}

/// A run that came to nothing by no doing of the plugin's, and may come to something another time.
fn unequipped(message: String) -> Finished {
    Finished {
        outcome: Outcome::Failed(Failure::Trapped { message }),
        usage: Usage::default(),
    }
}

/// What a call to a guest came back with.
enum Called {
    /// The handler's result.
    Returned(Result<handler::Output, handler::Failure>),
    /// A command's exit code.
    Exited(u32),
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    const RUNS: u32 = 20_000;

    fn process_time() -> std::time::Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Prints what a run costs beside what wasmtime itself does for it; what is asserted is that
    /// both do the work.
    #[test]
    fn a_run_costs_little_more_than_its_instance() {
        let limits = Limits::default();
        let settings = SandboxSettings {
            slots: 16,
            ceiling: Limits {
                memory: 64 << 20,
                ..Limits::CEILING
            },
            threads: 1,
        };
        let sandbox = Sandbox::new(&settings).unwrap();
        let echo = include_bytes!(concat!(env!("OUT_DIR"), "/echo.wasm"));
        let prepared = sandbox.prepare(echo).unwrap();
        let Runnable::Plugin(plugin) = &*prepared.0 else {
            panic!("{prepared:?}")
        };
        let grants = Arc::default();
        let task = Task {
            id: crate::task::new_id(),
            plugin: "echo".parse().unwrap(),
            payload: bytes::Bytes::from_static(b"hello"),
            content_type: None,
            headers: Vec::new(),
            attempt: 1,
        };
        let caller = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();

        let began = process_time();
        caller.block_on(async {
            let bounds = Bounds::of(&limits, &sandbox.house.ceiling);
            let voice = Voice::new(&task, Observers::default(), Cancel::new(), bounds);
            let voice = Arc::new(voice);
            let breach = Breach::default();
            for _ in 0..RUNS {
                let around = Surroundings {
                    voice: &voice,
                    limits: &limits,
                    breach: &breach,
                    grants: &grants,
                    network: &sandbox.house.network,
                    ticker: &sandbox.house.ticker,
                    variables: Vec::new(),
                    command: None,
                };
                let mut store = Guest::store(&sandbox.house.engine, around).unwrap();
                let plugin = plugin.instantiate_async(&mut store).await.unwrap();
                let handed = handler::Task {
                    id: &task.id,
                    plugin: "echo",
                    payload: &task.payload,
                    content_type: None,
                    headers: &[],
                    attempt: 1,
                    max_attempts: 1,
                    timeout_ms: 1,
                };
                let handler = plugin.scutwork_task_handler();
                let output = handler
                    .call_handle(&mut store, handed)
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(output.body, b"hello");
            }
        });
        let bare = (process_time() - began) / RUNS;

        let cost = |at_once: u32| {
            let began = process_time();
            caller.block_on(async {
                for _ in 0..RUNS / at_once {
                    let (observers, cancel) = (Observers::default(), Cancel::new());
                    let runs = (0..at_once).map(|_| {
                        let job = Job {
                            prepared: &prepared,
                            task: &task,
                            grants: &grants,
                            limits,
                            max_attempts: 1,
                        };
                        sandbox.run(job, &observers, &cancel)
                    });
                    for finished in futures_util::future::join_all(runs).await {
                        assert!(matches!(finished.outcome, Outcome::Done(_)));
                    }
                }
            });
            (process_time() - began) / RUNS
        };
        let (single, many) = (cost(1), cost(16));
        eprintln!(
            "a no-op run: {bare:?} in wasmtime alone, {single:?} one by one, {many:?} sixteen at once"
        );
    }
}
