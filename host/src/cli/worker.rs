//! `scutwork worker`: a worker on a broker, until stopped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::log::LogObserver;
use super::long_plugins::LongPlugins;
use super::readiness::{Keeper, Readiness};
use super::signals::Signals;
use super::{Exit, Stopped, connect, output};
use crate::broker::{Broker, NoticeSink};
use crate::config::Config;
use crate::event::{Event, Observer, Observers};
use crate::plugin::compiler::{CompileSettings, Place};
use crate::plugin::registry::RegistrySettings;
use crate::plugin::watch::Watch;
use crate::plugin::{PluginRules, Registry};
use crate::sandbox::{Sandbox, SandboxSettings};
use crate::worker::{Stop, StopSwitch, Worker, WorkerSettings};

/// How long a worker waits for its plugins before it takes tasks. One that is slow to compile, or
/// never ends to, keeps the others from nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the command.
pub(super) async fn worker(config: Config) -> Result<Exit, Stopped> {
    let signals = Signals::new()?;
    let rig = Rig::build(&config, vec![Box::new(LogObserver)]).await?;
    let (switch, stop) = StopSwitch::new();
    let ended = tokio::select! {
        ended = rig.run(stop.clone()) => ended,
        () = signals.drive(switch) => Ok(()),
    };
    ended?;
    if stop.is_ending() {
        output::complain("ended at once; the broker delivers again what was running");
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}

/// Everything that a worker needs, put together from a configuration.
pub(super) struct Rig {
    pub(super) broker: Arc<dyn Broker>,
    worker: WorkerSettings,
    registry: Arc<Registry>,
    watch: Watch,
    sandbox: Arc<Sandbox>,
    observers: Observers,
    keeper: Keeper,
}

impl Rig {
    /// Loads the plugins, watches their directory, and opens the broker. No task is taken yet.
    pub(super) async fn build(
        config: &Config,
        mut observers: Vec<Box<dyn Observer>>,
    ) -> Result<Rig, Stopped> {
        let (readiness, keeper) = Readiness::new(&config.queues, config.ready_file.clone())?;
        let long_plugins = LongPlugins::new(&config.broker);
        observers.push(Box::new(readiness));
        observers.push(Box::new(long_plugins.clone()));
        let observers = Observers::new(observers);
        let sandbox = Arc::new(sandbox(config, config.slots.get())?);
        let registry = open(config, PATIENCE, &sandbox, &observers)?;
        let watch = registry.watch()?;
        let heard = observers.clone();
        let notices: NoticeSink = Arc::new(move |notice| heard.tell(&Event::Broker(&notice)));
        let broker = connect(&config.broker, notices).await?;
        let registry = Arc::new(registry);
        long_plugins.watch(&registry);
        Ok(Rig {
            broker,
            worker: settings(config),
            registry,
            watch,
            sandbox,
            observers,
            keeper,
        })
    }

    /// Works until told to stop.
    pub(super) async fn run(self, stop: Stop) -> Result<(), Stopped> {
        let Rig {
            broker,
            worker,
            registry,
            watch,
            sandbox,
            observers,
            keeper,
        } = self;
        let worker = Worker::new(worker, broker, registry, sandbox, observers, stop);
        let ended = tokio::select! {
            ended = worker.run() => ended,
            never = keeper.keep() => match never {},
        };
        watch.stop().await;
        Ok(ended?)
    }
}

/// A sandbox for so many runs at once.
pub(super) fn sandbox(config: &Config, slots: usize) -> Result<Sandbox, Stopped> {
    let sandbox = Sandbox::new(&SandboxSettings {
        slots,
        ceiling: config.ceiling,
        threads: config.threads.get(),
    })
    .context("cannot make the sandbox")?;
    if let Some(why) = sandbox.without_pool() {
        tracing::warn!("instances are made one by one, which costs each task more: {why}");
    }
    Ok(sandbox)
}

/// The plugins that the configuration names, all loaded.
pub(super) fn registry(
    config: &Config,
    sandbox: &Arc<Sandbox>,
    observers: &Observers,
) -> Result<Registry, Stopped> {
    open(config, Duration::MAX, sandbox, observers)
}

fn open(
    config: &Config,
    patience: Duration,
    sandbox: &Arc<Sandbox>,
    observers: &Observers,
) -> Result<Registry, Stopped> {
    let settings = RegistrySettings {
        directory: config.plugins.clone(),
        rules: plugin_rules(config),
        patience,
        ..RegistrySettings::default()
    };
    Registry::open(settings, sandbox.clone(), observers.clone())
        .map_err(|error| Stopped::new(Exit::NotFound, error))
}

/// What plugins are held to. They are compiled by children of this very program.
pub(super) fn plugin_rules(config: &Config) -> PluginRules {
    PluginRules {
        ceiling: config.ceiling,
        compile: CompileSettings {
            place: Place::Child(own_program()),
            ..config.compile.clone()
        },
        trust: config.trust.clone(),
    }
}

/// This program's own file.
fn own_program() -> PathBuf {
    // On Linux it stays this very program when the file is replaced, as by an upgrade; another
    // version's code would be of no use.
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return running.to_owned();
    }
    // Where it cannot be told, starting it will say so.
    std::env::current_exe().unwrap_or_else(|_| running.to_owned())
}

fn settings(config: &Config) -> WorkerSettings {
    WorkerSettings {
        name: format!("{}:{}", host_name(), std::process::id()),
        queues: config.queues.clone(),
        slots: config.slots.get(),
        prefetch: config.prefetch,
        grace: config.grace,
        rules: config.rules.clone(),
        parking: config.parking,
    }
}

/// What this machine is called, as Linux and containers have it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
