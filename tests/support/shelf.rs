//! A plugin directory of a test's own, served and followed, and the events that it waits for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use scutwork::event::{Event, Observer, Observers, PluginEvent};
use scutwork::name::PluginName;
use scutwork::plugin::compiler::{CompileSettings, Place};
use scutwork::plugin::registry::{Directory, RegistrySettings};
use scutwork::plugin::watch::Watch;
use scutwork::plugin::{Plugin, PluginRules, Registry, embedded};
use scutwork::sandbox::{Limits, Sandbox, SandboxSettings};
use tempfile::TempDir;

/// Far more than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// So long that no test sees a rescan: what it sees came by a notice of the operating system.
const NEVER: Duration = Duration::from_secs(3600);

struct Events(Sender<PluginEvent>);

impl Observer for Events {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Plugin(event) = event {
            // A test that has ended hears no more.
            let _ = self.0.send((*event).clone());
        }
    }
}

/// A plugin directory of its own, served and followed.
pub(crate) struct Shelf {
    pub(crate) directory: TempDir,
    pub(crate) registry: Registry,
    pub(crate) events: Receiver<PluginEvent>,
    _watch: Watch,
}

/// One sandbox for all tests: what differs from test to test is the directory.
fn sandbox() -> Arc<Sandbox> {
    static SANDBOX: OnceLock<Arc<Sandbox>> = OnceLock::new();
    let settings = SandboxSettings {
        slots: 1,
        ceiling: Limits::CEILING,
        threads: 1,
    };
    Arc::clone(SANDBOX.get_or_init(|| Arc::new(Sandbox::new(&settings).unwrap())))
}

pub(crate) fn open(
    settings: RegistrySettings,
) -> anyhow::Result<(Registry, Receiver<PluginEvent>)> {
    let (sender, events) = mpsc::channel();
    let observers = Observers::new(vec![Box::new(Events(sender))]);
    Ok((Registry::open(settings, sandbox(), observers)?, events))
}

pub(crate) fn settings(directory: &Path) -> RegistrySettings {
    RegistrySettings {
        directory: Directory::Named(directory.to_owned()),
        rules: rules(),
        rescan: NEVER,
        ..RegistrySettings::default()
    }
}

/// Compiling as the program does it, in children of its own.
pub(crate) fn rules() -> PluginRules {
    PluginRules {
        compile: CompileSettings {
            place: Place::Child(env!("CARGO_BIN_EXE_scutwork").into()),
            ..CompileSettings::default()
        },
        ..PluginRules::default()
    }
}

impl Shelf {
    /// A directory without files, served and followed.
    pub(crate) fn empty() -> Self {
        Self::with(|_| {}, |settings| settings)
    }

    pub(crate) fn with(
        prepare: impl FnOnce(&Path),
        adjust: impl FnOnce(RegistrySettings) -> RegistrySettings,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        prepare(directory.path());
        let (registry, events) = open(adjust(settings(directory.path()))).unwrap();
        Self::follow(directory, registry, events)
    }

    /// Follows what was opened.
    pub(crate) fn follow(
        directory: TempDir,
        registry: Registry,
        events: Receiver<PluginEvent>,
    ) -> Self {
        Shelf {
            _watch: registry.watch().unwrap(),
            directory,
            registry,
            events,
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn next(&self) -> PluginEvent {
        self.events.recv_timeout(PATIENCE).expect("no event came")
    }

    /// Skips to the end of what was told by opening.
    pub(crate) fn settled(self) -> Self {
        while self.events.try_recv().is_ok() {}
        self
    }

    pub(crate) fn get(&self, plugin: &str) -> Option<Arc<Plugin>> {
        self.registry.get(&name(plugin))
    }

    /// Copies a plugin in the way that a careful tool does: aside, then renamed.
    pub(crate) fn put(&self, file: &str, content: &[u8]) {
        let aside = self.path(&format!(".{file}.part"));
        fs::write(&aside, content).unwrap();
        fs::rename(aside, self.path(file)).unwrap();
    }

    pub(crate) fn expect_added(&self, plugin: &str) -> Arc<Plugin> {
        match self.next() {
            PluginEvent::Added { name, digest, .. } => {
                assert_eq!(name.as_str(), plugin);
                let served = self.get(plugin).unwrap();
                assert_eq!(served.digest, digest);
                served
            }
            other => panic!("{plugin} was to be added, not {other:?}"),
        }
    }

    pub(crate) fn expect_replaced(&self, plugin: &str) -> Arc<Plugin> {
        match self.next() {
            PluginEvent::Replaced { name, digest, .. } => {
                assert_eq!(name.as_str(), plugin);
                let served = self.get(plugin).unwrap();
                assert_eq!(served.digest, digest);
                served
            }
            other => panic!("{plugin} was to be replaced, not {other:?}"),
        }
    }

    pub(crate) fn expect_removed(&self, plugin: &str) {
        assert_eq!(self.next(), PluginEvent::Removed { name: name(plugin) });
        assert!(self.get(plugin).is_none());
    }

    /// The reason for which a file is refused.
    pub(crate) fn expect_refused(&self, file: &str, serving: bool) -> String {
        match self.next() {
            PluginEvent::Refused {
                file: refused,
                reason,
                still_serving,
            } => {
                assert!(refused.contains(file), "{refused}: {reason}");
                assert_eq!(still_serving, serving, "{refused}: {reason}");
                assert!(
                    self.registry
                        .refused()
                        .iter()
                        .any(|seen| seen.file == refused && seen.reason == reason),
                    "{refused} is not listed"
                );
                reason
            }
            other => panic!("{file} was to be refused, not {other:?}"),
        }
    }
}

pub(crate) fn name(text: &str) -> PluginName {
    text.parse().unwrap()
}

/// The same plugin with other bytes: a component may end in a section that nobody reads.
pub(crate) fn version(number: u8) -> Vec<u8> {
    let mut wasm = embedded::echo().to_vec();
    wasm.extend_from_slice(&[0, 3, 1, b'v', number]);
    wasm
}
