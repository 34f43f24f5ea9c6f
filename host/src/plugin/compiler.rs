//! `Compiler`: bytes made into something that runs, by way of the cache or of a child process that
//! is held to its time and memory. It knows no files of plugins.

pub mod cache;
mod child;
pub mod confined;
mod protocol;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::cache::{Cache, CacheSettings, Key};
use self::child::Child;
use crate::sandbox::compile::NativeCode;
use crate::sandbox::{PrepareError, Prepared, Sandbox};
use crate::units::{show_duration, show_size};

/// How plugins are compiled, and the bounds that each is held to.
#[derive(Clone, Debug)]
pub struct CompileSettings {
    /// Where the compiler runs.
    pub place: Place,
    /// The most address space that compiling one plugin may take, in bytes.
    pub memory: u64,
    /// The most CPU time that compiling one plugin may take.
    pub time: Duration,
    /// The largest `.wasm` file, in bytes.
    pub max_file: u64,
    /// Where native code is kept. None: it is made anew each time.
    pub cache: Option<CacheSettings>,
}

/// Where the compiler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this very process, which a hostile plugin can then exhaust: for plugins that one has
    /// written oneself. Neither `memory` nor `time` holds.
    Here,
    /// In a child process of this program, which is scutwork's own, by its full path.
    Child(PathBuf),
}

impl Default for CompileSettings {
    fn default() -> Self {
        CompileSettings {
            place: Place::Here,
            memory: 2 << 30,
            time: Duration::from_secs(2 * 60),
            // Three times the size of an interpreter compiled to wasm, with its library.
            max_file: 64 << 20,
            cache: None,
        }
    }
}

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    #[error(transparent)]
    Refused(#[from] PrepareError),
    #[error("compiling it took more than {} of CPU; raise compile.time in scutwork.toml if it is to be trusted", show_duration(*.0))]
    Time(Duration),
    #[error(
        "compiling it took more than {} by the clock, so this machine is overloaded; touch the file to try again, or raise compile.time in scutwork.toml",
        show_duration(*.0)
    )]
    Clock(Duration),
    #[error("compiling it took more than {} of memory; raise compile.memory in scutwork.toml if it is to be trusted", show_size(*.0))]
    Memory(u64),
    #[error("the compiler failed on it: {0}")]
    Failed(String),
    /// One of the three before, at an earlier try.
    #[error(
        "{0}; this was found before, and is tried again a day later or with other bounds in [compile]"
    )]
    Known(String),
    /// The host's own fault, which may pass.
    #[error("no process could compile it: {0}")]
    NoChild(String),
    /// Nobody waits for it any more.
    #[error("compiling it was broken off")]
    Withdrawn,
}

/// What every plugin is compiled by. Threads share it.
pub(super) struct Compiler {
    sandbox: Arc<Sandbox>,
    compatibility: String,
    work: Work,
    cache: Option<Cache>,
    /// That nothing could be kept is told once.
    told: AtomicBool,
}

enum Work {
    Here,
    Child(Child),
}

/// What came of it.
pub(super) struct Compiled {
    pub(super) prepared: Prepared,
    /// What the operator should hear of.
    pub(super) warning: Option<String>,
}

impl From<Prepared> for Compiled {
    fn from(prepared: Prepared) -> Self {
        Compiled {
            prepared,
            warning: None,
        }
    }
}

impl Compiler {
    /// Opens the cache. Where it cannot be used there is none, and the second value says why.
    pub(super) fn new(
        sandbox: Arc<Sandbox>,
        settings: &CompileSettings,
    ) -> (Compiler, Option<String>) {
        let (cache, warning) = match settings.cache.as_ref().map(Cache::open) {
            None => (None, None),
            Some(Ok(cache)) => (Some(cache), None),
            Some(Err(why)) => (None, Some(without_cache(&why))),
        };
        let compiler = Compiler {
            compatibility: sandbox.compatibility(),
            work: match &settings.place {
                Place::Here => Work::Here,
                Place::Child(program) => Work::Child(Child {
                    program: program.clone(),
                    memory: settings.memory,
                    time: settings.time,
                }),
            },
            sandbox,
            cache,
            told: AtomicBool::new(false),
        };
        (compiler, warning)
    }

    /// Makes a plugin of these bytes, whose sha256 in hex is `digest`. It blocks for as long as that
    /// takes; where it is no longer wanted, it is broken off.
    pub(super) fn prepare(
        &self,
        wasm: &[u8],
        digest: &str,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Compiled, CompileError> {
        Sandbox::look(wasm)?;
        let key = Key::new(digest, &self.compatibility);
        if let Some(prepared) = self.kept(&key) {
            return Ok(prepared.into());
        }
        if let Some(why) = self.known_failure(&key) {
            return Err(CompileError::Known(why));
        }
        let code = match self.compile(wasm, is_wanted) {
            Ok(code) => code,
            Err(error) => {
                self.keep_failure(&key, &error);
                return Err(error);
            }
        };
        let prepared = self.sandbox.load(&code)?;
        Ok(Compiled {
            prepared,
            warning: self.keep(&key, &code),
        })
    }

    fn compile(
        &self,
        wasm: &[u8],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<NativeCode, CompileError> {
        let target = self.sandbox.target();
        match &self.work {
            Work::Here => Ok(target.compile(wasm)?),
            Work::Child(child) => child.compile(target, wasm, is_wanted),
        }
    }

    fn kept(&self, key: &Key) -> Option<Prepared> {
        let cache = self.cache.as_ref()?;
        let prepared = self.sandbox.load(&cache.get(key)?).ok();
        if prepared.is_none() {
            cache.forget(key);
        }
        prepared
    }

    /// Why this plugin is not worth another child, with these bounds.
    fn known_failure(&self, key: &Key) -> Option<String> {
        match &self.work {
            Work::Here => None,
            Work::Child(child) => self.cache.as_ref()?.failure(&child.within(key)),
        }
    }

    /// Remembers what would cost as much at every start. The rest is cheap to find out, or may be
    /// otherwise the next time.
    fn keep_failure(&self, key: &Key, error: &CompileError) {
        let is_costly = match error {
            CompileError::Time(_) | CompileError::Memory(_) | CompileError::Failed(_) => true,
            CompileError::Refused(_)
            | CompileError::Clock(_)
            | CompileError::Known(_)
            | CompileError::NoChild(_)
            | CompileError::Withdrawn => false,
        };
        if let (Work::Child(child), Some(cache), true) = (&self.work, &self.cache, is_costly) {
            // Where it cannot be kept, it is found out again.
            let _ = cache.put_failure(&child.within(key), &error.to_string());
        }
    }

    fn keep(&self, key: &Key, code: &NativeCode) -> Option<String> {
        let cache = self.cache.as_ref()?;
        let error = cache.put(key, code).err()?;
        let first = !self.told.swap(true, Ordering::Relaxed);
        first.then(|| without_cache(&format!("{}: {error}", cache.directory().display())))
    }
}

fn without_cache(why: &str) -> String {
    format!(
        "what is compiled cannot be kept, so every start compiles again: {why}; name another directory as compile.cache in scutwork.toml, or set it to false"
    )
}
