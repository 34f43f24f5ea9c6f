//! [`Registry`]: the plugins that serve, looked up by every task without a lock that tasks share.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::loader::{Loader, Patience};
use super::makers::Makers;
use super::order::Workbench;
use super::watch::{Wake, Watch};
use super::{Plugin, PluginRules};
use crate::event::Observers;
use crate::name::PluginName;
use crate::sandbox::Sandbox;

/// Where plugins come from, and what they are held to.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Where `.wasm` files are dropped.
    pub directory: Directory,
    /// What every plugin is held to.
    pub rules: PluginRules,
    /// How long opening waits for plugins that are slow to compile; they arrive later.
    pub patience: Duration,
    /// How often to look at the directory when nothing tells of a change, as on network file systems.
    pub rescan: Duration,
}

/// The plugin directory, and whether it must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// Somebody named it, so its absence is a mistake.
    Named(PathBuf),
    /// Nobody named one: it is used when it appears.
    Usual(PathBuf),
}

/// The plugins that serve, and the files that do not. Every task asks it; asking takes no lock.
pub struct Registry {
    current: Arc<Current>,
    directory: PathBuf,
    rescan: Duration,
    /// What [`Registry::watch`] takes with it.
    idle: Mutex<Option<(Loader, Receiver<Wake>)>>,
    wakes: SyncSender<Wake>,
}

/// A file that is not a plugin, for as long as it is not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// The file, and the line where there is one.
    pub file: String,
    /// Why, and what to do.
    pub reason: String,
}

/// The state of now, and word of every change.
#[derive(Default)]
pub(super) struct Current {
    served: ArcSwap<Served>,
    changed: Notify,
}

/// One state of the registry, never changed.
#[derive(Default)]
pub(super) struct Served {
    pub(super) plugins: HashMap<PluginName, Arc<Plugin>>,
    pub(super) refused: Vec<Refused>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            directory: Directory::Usual(PathBuf::from("plugins")),
            rules: PluginRules::default(),
            patience: Duration::MAX,
            rescan: Duration::from_secs(2),
        }
    }
}

impl Registry {
    /// Loads what is built in and everything in the directory, on all cores. Observers hear of each
    /// plugin and each refusal before this returns, but for those that took longer than the patience.
    ///
    /// It blocks for as long as that takes: call it before serving, or where blocking is allowed.
    ///
    /// # Errors
    /// When the directory cannot be listed; a usual one may be missing. A file that is no plugin is
    /// no error, but [`Registry::refused`].
    pub fn open(
        settings: RegistrySettings,
        sandbox: Arc<Sandbox>,
        observers: Observers,
    ) -> Result<Self> {
        let directory = settings.directory.checked()?;
        let (done, wakes) = sync_channel(WAKES);
        let (workbench, warning) = Workbench::new(sandbox, &settings.rules);
        let current = Arc::new(Current::default());
        let mut loader = Loader {
            directory: directory.clone(),
            max_size: workbench.max_size,
            built_in: super::built_in(),
            makers: Makers::start(&workbench, &done)
                .context("no thread to compile plugins could be started")?,
            current: Arc::clone(&current),
            observers,
            patience: Patience::NONE,
            entries: BTreeMap::new(),
            strays: BTreeMap::new(),
            trouble: None,
        };
        if let Some(warning) = warning {
            loader.warn(warning);
        }
        loader.look(Instant::now());
        let deadline = Instant::now().checked_add(settings.patience);
        while loader.is_loading() {
            match receive(&wakes, deadline) {
                Some(Wake::Made(made)) => loader.take(made, Instant::now()),
                Some(Wake::Look) => {}
                None => {
                    loader.warn(
                        "some plugins take long to compile; their tasks wait for them".to_owned(),
                    );
                    break;
                }
            }
        }
        loader.patience = Patience::USUAL;
        Ok(Registry {
            current,
            directory,
            rescan: settings.rescan,
            idle: Mutex::new(Some((loader, wakes))),
            wakes: done,
        })
    }

    /// The plugin that serves by this name now. Whoever has it keeps it, whatever comes after.
    pub fn get(&self, name: &PluginName) -> Option<Arc<Plugin>> {
        self.current.load().get(name)
    }

    /// The plugin that serves by this name; where its file has come but is still being read or
    /// compiled, once that is done, for [`ON_ITS_WAY`] at most. Cancel safe.
    pub async fn get_or_await(&self, name: &PluginName) -> Option<Arc<Plugin>> {
        let served = self.get(name);
        if served.is_some() || !self.is_on_its_way(name) {
            return served;
        }
        let arrived = async {
            loop {
                let mut changed = pin!(self.current.changed.notified());
                changed.as_mut().enable();
                let served = self.get(name);
                if served.is_some() || !self.is_on_its_way(name) {
                    return served;
                }
                changed.await;
            }
        };
        tokio::time::timeout(ON_ITS_WAY, arrived)
            .await
            .ok()
            .flatten()
    }

    fn is_on_its_way(&self, name: &PluginName) -> bool {
        let file = self.directory.join(format!("{name}.wasm"));
        let manifest = file.with_extension("toml");
        let (file_text, manifest_text) =
            (file.display().to_string(), manifest.display().to_string());
        // With its signature, which is `thumb.wasm.minisig`, and with lines of the manifest.
        let is_refused = |refused: &Refused| {
            refused.file.starts_with(&file_text) || refused.file.starts_with(&manifest_text)
        };
        file.exists() && !self.current.load().refused.iter().any(is_refused)
    }

    /// All that serve, by name.
    pub fn list(&self) -> Vec<Arc<Plugin>> {
        let mut plugins: Vec<_> = self.current.load().plugins.values().cloned().collect();
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        plugins
    }

    /// The files that are no plugins now.
    pub fn refused(&self) -> Vec<Refused> {
        self.current.load().refused.clone()
    }

    /// Follows the directory from now on, changes since [`Registry::open`] included, until the watch
    /// is stopped or dropped.
    ///
    /// # Errors
    /// When it is watched already, or was before.
    pub fn watch(&self) -> Result<Watch> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((loader, wakes)) = idle else {
            bail!("the plugin directory is watched already");
        };
        Watch::start(loader, wakes, self.wakes.clone(), self.rescan)
            .context("no thread to watch the plugin directory could be started")
    }
}

/// The next wake. None: it does not come in time.
fn receive(wakes: &Receiver<Wake>, deadline: Option<Instant>) -> Option<Wake> {
    match deadline {
        None => wakes.recv().ok(),
        Some(deadline) => wakes
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .ok(),
    }
}

/// How long a task waits for a plugin whose file is there: most compile in less. It is parked after
/// that, and comes back.
pub const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// How many wakes may wait. More than one look is never needed, and what is made waits in the thread
/// that made it.
const WAKES: usize = 16;

impl Current {
    pub(super) fn load(&self) -> arc_swap::Guard<Arc<Served>> {
        self.served.load()
    }

    pub(super) fn store(&self, served: Served) {
        self.served.store(Arc::new(served));
        self.changed.notify_waiters();
    }
}

impl Served {
    pub(super) fn get(&self, name: &PluginName) -> Option<Arc<Plugin>> {
        self.plugins.get(name).cloned()
    }
}

impl Directory {
    fn checked(self) -> Result<PathBuf> {
        let (path, may_be_missing) = match self {
            Directory::Named(path) => (path, false),
            Directory::Usual(path) => (path, true),
        };
        match std::fs::read_dir(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_missing => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "plugin directory {} does not exist; make it with mkdir -p, or name another with --plugins",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| {
                format!(
                    "plugin directory {} cannot be listed; name another with --plugins",
                    path.display()
                )
            }),
        }
    }
}
