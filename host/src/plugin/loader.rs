//! The loader: compares what is in the directory with what serves, and decides what to load, to
//! refuse and to drop. It runs on one thread at a time, so that changes are told in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::makers::Makers;
use super::order::{Claim, Fault, Made, NotMade, Order, Ready, Refusal, Source};
use super::registry::{Current, Refused, Served};
use super::scan::{self, File, FileState, Files, Found};
use super::{Origin, Plugin};
use crate::event::{Event, Observers, PluginEvent};
use crate::name::PluginName;

/// How long files must have been as they are before they count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Before they are read. A copy that goes on changes its file more often than that, mostly.
    pub(super) to_load: Duration,
    /// Before they are refused: what a copy that stalls has left so far is no plugin, and no news.
    pub(super) to_refuse: Duration,
}

impl Patience {
    /// For the first look, whose answer somebody waits for.
    pub(super) const NONE: Patience = Patience {
        to_load: Duration::ZERO,
        to_refuse: Duration::ZERO,
    };
    /// For a directory that people work in.
    pub(super) const USUAL: Patience = Patience {
        to_load: Duration::from_millis(40),
        to_refuse: Duration::from_secs(1),
    };
}

/// How long to wait before a file that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// A plugin that is part of the program.
pub(super) type BuiltIn = (PluginName, &'static [u8]);

/// What it takes to keep [`Served`] true to the directory.
pub(super) struct Loader {
    pub(super) directory: PathBuf,
    pub(super) max_size: u64,
    pub(super) built_in: Vec<BuiltIn>,
    pub(super) makers: Makers,
    pub(super) current: Arc<Current>,
    pub(super) observers: Observers,
    pub(super) patience: Patience,
    pub(super) entries: BTreeMap<PluginName, Entry>,
    pub(super) strays: BTreeMap<PathBuf, String>,
    /// What is wrong with the directory itself, and since when.
    pub(super) trouble: Option<Trouble>,
}

/// What is known of one plugin's files.
pub(super) struct Entry {
    files: Files,
    /// Since when the files are as they are.
    since: Instant,
    stage: Stage,
    /// What was told last, for as long as it holds.
    refusal: Option<Refusal>,
}

/// How far the files are on their way to a plugin.
enum Stage {
    /// They may still be written.
    Fresh,
    /// Somebody makes a plugin of them.
    Ordered(Arc<Claim>),
    /// They are no plugin, and may still be written.
    Doubtful(Refusal),
    /// They were refused for what may pass, and are tried again then.
    Failing { again: Instant },
    /// They were loaded, or refused for good.
    Settled,
}

/// Why the directory cannot be listed.
pub(super) struct Trouble {
    reason: String,
    since: Instant,
    told: bool,
}

impl Loader {
    /// Looks at the directory once and acts on what is new. Returns after how long there is
    /// something to do even if nothing changes; none: nothing.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        match scan::look(&self.directory, self.max_size) {
            Ok(found) => {
                if self.trouble.take().is_some_and(|trouble| trouble.told) {
                    self.publish(|_| {});
                }
                self.compare(found, now);
            }
            Err(error) => self.cannot_list(&error, now),
        }
        self.next_deadline(now)
    }

    /// Whether plugins are being made.
    pub(super) fn is_loading(&self) -> bool {
        self.entries
            .values()
            .any(|entry| matches!(entry.stage, Stage::Ordered(_)))
    }

    /// Tells of something that is odd about the directory and does not end the loading.
    pub(super) fn warn(&self, warning: String) {
        self.tell(PluginEvent::Warned {
            file: self.directory.display().to_string(),
            warning,
        });
    }

    /// Takes what a compiler made. What was superseded meanwhile is dropped.
    pub(super) fn take(&mut self, made: Made, now: Instant) {
        let Some(entry) = self.entries.get_mut(&made.name) else {
            return;
        };
        match &entry.stage {
            Stage::Ordered(claim) if Weak::ptr_eq(&made.claim, &Arc::downgrade(claim)) => {}
            Stage::Ordered(_)
            | Stage::Fresh
            | Stage::Doubtful(_)
            | Stage::Failing { .. }
            | Stage::Settled => return,
        }
        match made.result {
            Ok(ready) => {
                entry.stage = Stage::Settled;
                entry.refusal = None;
                if let Some(warning) = &ready.warning {
                    self.warn(warning.clone());
                }
                self.install(ready);
            }
            Err(NotMade::Refused(refusal)) => self.doubt(&made.name, refusal, now),
            Err(NotMade::Withdrawn) => entry.stage = Stage::Fresh,
        }
    }

    fn compare(&mut self, mut found: Found, now: Instant) {
        self.compare_strays(mem::take(&mut found.strays));
        let names: BTreeSet<PluginName> = self
            .entries
            .keys()
            .chain(found.plugins.keys())
            .chain(self.built_in.iter().map(|(name, _)| name))
            .cloned()
            .collect();
        for name in names {
            let files = found.plugins.remove(&name).unwrap_or_default();
            self.compare_one(&name, files, now);
        }
    }

    fn compare_strays(&mut self, strays: BTreeMap<PathBuf, String>) {
        if strays == self.strays {
            return;
        }
        let before = mem::replace(&mut self.strays, strays);
        self.publish(|_| {});
        for (path, reason) in &self.strays {
            if before.get(path) != Some(reason) {
                self.tell(PluginEvent::Refused {
                    file: path.display().to_string(),
                    reason: reason.clone(),
                    still_serving: false,
                });
            }
        }
    }

    fn compare_one(&mut self, name: &PluginName, files: Files, now: Instant) {
        let entry = self.entries.entry(name.clone()).or_insert_with(|| Entry {
            files: files.clone(),
            since: now,
            stage: Stage::Fresh,
            refusal: None,
        });
        if entry.files != files {
            entry.files = files;
            entry.since = now;
            entry.stage = Stage::Fresh;
        }
        let quiet = now.saturating_duration_since(entry.since);
        match &entry.stage {
            Stage::Fresh if quiet >= self.patience.to_load => self.decide(name, now),
            Stage::Doubtful(refusal) if quiet >= self.patience.to_refuse => {
                let refusal = refusal.clone();
                self.refuse(name, refusal, now);
            }
            Stage::Failing { again } if now >= *again => self.decide(name, now),
            Stage::Failing { .. }
            | Stage::Fresh
            | Stage::Doubtful(_)
            | Stage::Ordered(_)
            | Stage::Settled => {}
        }
    }

    /// Decides what becomes of files that are quiet.
    fn decide(&mut self, name: &PluginName, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let built_in = self.built_in.iter().find(|(known, _)| known == name);
        let source = match (&entry.files.wasm, built_in) {
            (Some(file), _) => usable(file).map(|(path, stamp)| Source::File(path, stamp)),
            (None, Some((_, wasm))) => Ok(Source::BuiltIn(wasm)),
            (None, None) => return self.remove(name),
        };
        let manifest = entry.files.manifest.as_ref().map(usable).transpose();
        let signature = entry.files.signature.as_ref().map(usable).transpose();
        match (source, manifest, signature) {
            (Ok(source), Ok(manifest), Ok(signature)) => {
                let claim = Arc::new(Claim);
                self.makers.order(Order {
                    name: name.clone(),
                    source,
                    manifest,
                    signature,
                    serving: self.current.load().get(name),
                    claim: Arc::downgrade(&claim),
                });
                entry.stage = Stage::Ordered(claim);
            }
            (Err(refusal), _, _) | (_, Err(refusal), _) | (_, _, Err(refusal)) => {
                self.doubt(name, refusal, now);
            }
        }
    }

    fn install(&self, ready: Ready) {
        let plugin = ready.plugin;
        let name = plugin.name.clone();
        let before = self.current.load().get(&name);
        self.publish(|plugins| {
            plugins.insert(name.clone(), Arc::clone(&plugin));
        });
        let same =
            |before: &Plugin| before.digest == plugin.digest && before.manifest == plugin.manifest;
        let digest = plugin.digest.clone();
        let compiled_in = ready.compiled_in;
        match before.as_deref() {
            // Touched, or copied again: nothing that anybody would notice.
            Some(before) if same(before) => return,
            Some(_) => self.tell(PluginEvent::Replaced {
                name,
                digest,
                compiled_in,
            }),
            None => self.tell(PluginEvent::Added {
                name,
                digest,
                compiled_in,
            }),
        }
        for warning in &plugin.manifest.lowered {
            self.tell(PluginEvent::Warned {
                file: match &plugin.origin {
                    Origin::BuiltIn => format!("{}.toml", plugin.name),
                    Origin::File(path) => path.with_extension("toml").display().to_string(),
                },
                warning: warning.clone(),
            });
        }
    }

    fn remove(&mut self, name: &PluginName) {
        self.entries.remove(name);
        let served = self.current.load().get(name).is_some();
        self.publish(|plugins| {
            plugins.remove(name);
        });
        if served {
            self.tell(PluginEvent::Removed { name: name.clone() });
        }
    }

    /// Refuses files once they have been quiet for long enough.
    fn doubt(&mut self, name: &PluginName, refusal: Refusal, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if now.saturating_duration_since(entry.since) >= self.patience.to_refuse {
            self.refuse(name, refusal, now);
        } else {
            entry.stage = Stage::Doubtful(refusal);
        }
    }

    fn refuse(&mut self, name: &PluginName, refusal: Refusal, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.stage = match refusal.fault {
            Fault::Passing => Stage::Failing {
                again: now + READ_AGAIN,
            },
            Fault::File | Fault::Content(_) => Stage::Settled,
        };
        if entry.refusal.as_ref() == Some(&refusal) {
            return;
        }
        entry.refusal = Some(refusal.clone());
        self.publish(|_| {});
        self.tell(PluginEvent::Refused {
            file: refusal.file,
            reason: refusal.reason,
            still_serving: self.current.load().get(name).is_some(),
        });
    }

    /// A directory that is gone for a moment is being replaced; one that stays away is empty. One
    /// that is there and cannot be listed says nothing of what is in it, so all goes on serving.
    fn cannot_list(&mut self, error: &io::Error, now: Instant) {
        let reason = format!("the plugin directory cannot be listed: {error}");
        let patience = self.patience.to_refuse;
        let trouble = match &mut self.trouble {
            Some(trouble) if trouble.reason == reason => trouble,
            _ => self.trouble.insert(Trouble {
                reason,
                since: now,
                told: false,
            }),
        };
        if now.saturating_duration_since(trouble.since) < patience {
            return;
        }
        if error.kind() == io::ErrorKind::NotFound {
            self.compare(Found::default(), now);
        } else if !trouble.told {
            trouble.told = true;
            let reason = trouble.reason.clone();
            self.publish(|_| {});
            self.tell(PluginEvent::Refused {
                file: self.directory.display().to_string(),
                reason,
                still_serving: true,
            });
        }
    }

    /// Puts a new set of plugins, with what is refused now, in the place of the old one.
    fn publish(&self, change: impl FnOnce(&mut HashMap<PluginName, Arc<Plugin>>)) {
        let mut plugins = self.current.load().plugins.clone();
        change(&mut plugins);
        let trouble = self.trouble.iter().filter(|trouble| trouble.told);
        let refused = trouble
            .map(|trouble| Refused {
                file: self.directory.display().to_string(),
                reason: trouble.reason.clone(),
            })
            .chain(self.strays.iter().map(|(path, reason)| Refused {
                file: path.display().to_string(),
                reason: reason.clone(),
            }))
            .chain(
                self.entries
                    .values()
                    .filter_map(|entry| entry.refusal.as_ref())
                    .map(|refusal| Refused {
                        file: refusal.file.clone(),
                        reason: refusal.reason.clone(),
                    }),
            )
            .collect();
        self.current.store(Served { plugins, refused });
    }

    fn tell(&self, event: PluginEvent) {
        self.observers.tell(&Event::Plugin(&event));
    }

    fn next_deadline(&self, now: Instant) -> Option<Duration> {
        let entries = self.entries.values().filter_map(|entry| match entry.stage {
            Stage::Fresh => Some(entry.since + self.patience.to_load),
            Stage::Doubtful(_) => Some(entry.since + self.patience.to_refuse),
            Stage::Failing { again } => Some(again),
            Stage::Ordered(_) | Stage::Settled => None,
        });
        let trouble = self
            .trouble
            .iter()
            .map(|trouble| trouble.since + self.patience.to_refuse)
            .filter(|due| *due > now);
        entries
            .chain(trouble)
            .min()
            .map(|due| due.saturating_duration_since(now))
    }
}

fn usable(file: &File) -> Result<(PathBuf, scan::Stamp), Refusal> {
    match &file.state {
        FileState::Regular(stamp) => Ok((file.path.clone(), stamp.clone())),
        FileState::Unusable(reason) => Err(refusal_of(&file.path, reason)),
    }
}

fn refusal_of(path: &Path, reason: &str) -> Refusal {
    Refusal {
        file: path.display().to_string(),
        reason: reason.to_owned(),
        fault: Fault::File,
    }
}

#[cfg(test)]
mod tests;
