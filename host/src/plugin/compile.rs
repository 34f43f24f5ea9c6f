//! From files to a [`Plugin`], on threads of their own: reading, checking and compiling take long, and
//! nobody who serves waits for them.

use std::any::Any;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::scan::{MAX_MANIFEST, Signature};
use super::watch::Wake;
use super::{Origin, Plugin};
use crate::name::PluginName;
use crate::sandbox::Sandbox;
use crate::sandbox::limits::Limits;
use crate::units::show_size;

/// Where the bytes of a plugin are.
#[derive(Debug)]
pub(super) enum Source {
    BuiltIn(&'static [u8]),
    File(PathBuf, Signature),
}

/// One plugin to make.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) name: PluginName,
    pub(super) source: Source,
    pub(super) manifest: Option<(PathBuf, Signature)>,
    /// The plugin that serves now. Where the bytes are the same, nothing is compiled.
    pub(super) serving: Option<Arc<Plugin>>,
    /// Held by whoever waits for the plugin; once it is dropped, nobody does.
    pub(super) claim: Weak<Claim>,
}

/// Whoever holds it waits for the result of its order; dropping it withdraws the order.
#[derive(Debug)]
pub(super) struct Claim;

/// What came of an order.
pub(super) struct Made {
    pub(super) name: PluginName,
    pub(super) claim: Weak<Claim>,
    pub(super) result: Result<Ready, NotMade>,
}

/// A plugin that can serve.
pub(super) struct Ready {
    pub(super) plugin: Arc<Plugin>,
    pub(super) compiled_in: Duration,
}

/// Why there is no plugin.
pub(super) enum NotMade {
    Refused(Refusal),
    /// Nobody waits for it.
    Withdrawn,
}

/// A file that does not become a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The file, and the line where there is one.
    pub(super) file: String,
    pub(super) reason: String,
    /// What was refused: the same is told once.
    pub(super) fault: Fault,
}

/// Where the fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// In the file's kind or size; another file must come.
    File,
    /// In the content, named by its digest; another must come.
    Content(String),
    /// In the reading, and may pass without a change that anybody sees: a network, a lease.
    Reading,
}

/// The threads that compile.
pub(super) struct Compilers(Arc<Orders>);

struct Orders {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    orders: VecDeque<Order>,
    closed: bool,
}

/// What every order is made with.
#[derive(Clone)]
pub(super) struct Workbench {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) ceiling: Limits,
    /// The largest plugin, in bytes.
    pub(super) max_size: u64,
}

impl Compilers {
    /// Starts as many threads as there are cores. They end when this is dropped; a compile cannot be
    /// broken off, so a thread that is in one ends after it, and nobody waits for that.
    pub(super) fn start(workbench: &Workbench, done: &SyncSender<Wake>) -> io::Result<Self> {
        let compilers = Compilers(Arc::new(Orders {
            waiting: Mutex::default(),
            more: Condvar::new(),
        }));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let orders = Arc::clone(&compilers.0);
            let (workbench, done) = (workbench.clone(), done.clone());
            thread::Builder::new()
                .name("compile".to_owned())
                .spawn(move || {
                    yield_to_those_who_serve();
                    while let Some(order) = orders.next() {
                        // An error says that nobody is there any more.
                        if done.send(Wake::Made(make(order, &workbench))).is_err() {
                            break;
                        }
                    }
                })?;
        }
        Ok(compilers)
    }

    /// Puts an order behind the others, and drops those that were withdrawn: so no more can wait
    /// than there are plugins.
    pub(super) fn order(&self, order: Order) {
        let mut waiting = self.0.lock();
        waiting
            .orders
            .retain(|order| order.claim.strong_count() > 0);
        waiting.orders.push_back(order);
        self.0.more.notify_one();
    }
}

impl Drop for Compilers {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.more.notify_all();
    }
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Order> {
        let mut waiting = self
            .more
            .wait_while(self.lock(), |waiting| {
                waiting.orders.is_empty() && !waiting.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return None;
        }
        waiting.orders.pop_front()
    }
}

/// A compile is not urgent, and takes every core that it finds. The threads that the compiler starts
/// by itself inherit the priority. Only Linux has one for each thread; elsewhere it would be the whole
/// process's.
fn yield_to_those_who_serve() {
    #[cfg(target_os = "linux")]
    {
        // About a third of the share of a thread that serves: a plugin must arrive on a busy host too.
        const NICENESS: i32 = 5;
        // Where it may not be lowered, compiling is merely not polite.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    }
}

/// Makes one plugin, on this very thread.
pub(super) fn make(order: Order, workbench: &Workbench) -> Made {
    let name = order.name.clone();
    let claim = order.claim.clone();
    let file = order.file();
    // The compiler meets hostile bytes here. Its panic is that file's failure, and nobody else's.
    let result = panic::catch_unwind(AssertUnwindSafe(|| order.make(workbench))).unwrap_or_else(
        |panicked| {
            Err(NotMade::Refused(Refusal {
                file,
                reason: format!(
                    "the compiler failed on it: {}",
                    panic_text(panicked.as_ref())
                ),
                fault: Fault::File,
            }))
        },
    );
    Made {
        name,
        claim,
        result,
    }
}

fn panic_text(panicked: &(dyn Any + Send)) -> &str {
    panicked
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panicked.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it does not say why")
}

impl Order {
    fn file(&self) -> String {
        match &self.source {
            Source::BuiltIn(_) => format!("{} (built in)", self.name),
            Source::File(path, _) => path.display().to_string(),
        }
    }

    fn make(self, workbench: &Workbench) -> Result<Ready, NotMade> {
        if self.claim.strong_count() == 0 {
            return Err(NotMade::Withdrawn);
        }
        // The manifest first: it is the cheaper one to refuse.
        let manifest = self.manifest(&workbench.ceiling)?;
        let file = self.file();
        let (wasm, origin) = match self.source {
            Source::BuiltIn(wasm) => (Cow::Borrowed(wasm), Origin::BuiltIn),
            Source::File(path, signature) => (
                Cow::Owned(read(&path, &signature, workbench.max_size)?),
                Origin::File(path),
            ),
        };
        let digest = sha256(&wasm);
        let (prepared, compiled_in) = match self.serving {
            Some(serving) if serving.digest == digest => (serving.prepared.clone(), Duration::ZERO),
            Some(_) | None => {
                let begun = Instant::now();
                let prepared = workbench.sandbox.prepare(&wasm).map_err(|error| {
                    NotMade::Refused(Refusal {
                        file,
                        reason: error.to_string(),
                        fault: Fault::Content(digest.clone()),
                    })
                })?;
                (prepared, begun.elapsed())
            }
        };
        Ok(Ready {
            plugin: Arc::new(Plugin {
                name: self.name,
                digest,
                size: wasm.len() as u64,
                origin,
                manifest,
                prepared,
            }),
            compiled_in,
        })
    }

    fn manifest(&self, ceiling: &Limits) -> Result<Manifest, NotMade> {
        let Some((path, signature)) = &self.manifest else {
            return Ok(Manifest::without_file(ceiling));
        };
        let text = read(path, signature, MAX_MANIFEST)?;
        let refuse = |file, reason| {
            NotMade::Refused(Refusal {
                file,
                reason,
                fault: Fault::Content(sha256(&text)),
            })
        };
        let text = std::str::from_utf8(&text).map_err(|_| {
            refuse(
                path.display().to_string(),
                "it is not text in UTF-8".to_owned(),
            )
        })?;
        let manifest = Manifest::parse(text, path, ceiling)
            .map_err(|error| refuse(error.place(), error.message))?;
        match manifest.grants.check() {
            Ok(()) => Ok(manifest),
            Err(reason) => Err(NotMade::Refused(Refusal {
                file: path.display().to_string(),
                reason,
                fault: Fault::Reading,
            })),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads a whole file into memory. What is checked, hashed and compiled is these very bytes: the file
/// may change under everybody's feet.
fn read(path: &Path, expected: &Signature, max_size: u64) -> Result<Vec<u8>, NotMade> {
    let refuse = |reason: String, fault| {
        NotMade::Refused(Refusal {
            file: path.display().to_string(),
            reason,
            fault,
        })
    };
    let failed = |error: io::Error| {
        refuse(
            format!("cannot be read: {error}; the worker's user needs read access"),
            Fault::Reading,
        )
    };
    let changed = || {
        refuse(
            "it changes while it is read; it is loaded once it is whole".to_owned(),
            Fault::Reading,
        )
    };
    // It was a regular file when it was seen. Were it a named pipe by now, opening it must not wait.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let is_expected = |file: &fs::File| -> Result<bool, NotMade> {
        Ok(Signature::of(&file.metadata().map_err(failed)?) == *expected)
    };
    if !is_expected(&file)? {
        return Err(changed());
    }
    let mut content = Vec::new();
    (&mut file)
        .take(max_size + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > max_size {
        return Err(refuse(
            format!("it is over the limit of {}", show_size(max_size)),
            Fault::File,
        ));
    }
    if !is_expected(&file)? {
        return Err(changed());
    }
    Ok(content)
}
