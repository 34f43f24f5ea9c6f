//! One order: from files to a [`Plugin`], by reading, checking and compiling. It knows no threads.

use std::any::Any;
use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::compiler::{CompileError, Compiled, Compiler};
use super::manifest::Manifest;
use super::scan::{MAX_MANIFEST, MAX_SIGNATURE, Stamp};
use super::trust::{Signed, Trust};
use super::{Origin, Plugin, PluginRules};
use crate::name::PluginName;
use crate::sandbox::Sandbox;
use crate::sandbox::limits::Limits;
use crate::units::show_size;

/// Where the bytes of a plugin are.
#[derive(Debug)]
pub(super) enum Source {
    BuiltIn(&'static [u8]),
    File(PathBuf, Stamp),
}

/// One plugin to make.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) name: PluginName,
    pub(super) source: Source,
    pub(super) manifest: Option<(PathBuf, Stamp)>,
    pub(super) signature: Option<(PathBuf, Stamp)>,
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
    /// What the operator should hear of, beside it.
    pub(super) warning: Option<String>,
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
    /// In the reading or on the host, and may pass without a change that anybody sees: a network, a
    /// lease, a want of memory.
    Passing,
}

/// What every order is made with.
#[derive(Clone)]
pub(super) struct Workbench {
    pub(super) compiler: Arc<Compiler>,
    pub(super) ceiling: Limits,
    /// The largest plugin, in bytes.
    pub(super) max_size: u64,
    pub(super) trust: Arc<Trust>,
}

impl Workbench {
    /// The second value is what the operator should hear of.
    pub(super) fn new(sandbox: Arc<Sandbox>, rules: &PluginRules) -> (Workbench, Option<String>) {
        let (compiler, warning) = Compiler::new(sandbox, &rules.compile);
        let workbench = Workbench {
            compiler: Arc::new(compiler),
            ceiling: rules.ceiling,
            max_size: rules.compile.max_file,
            trust: Arc::new(rules.trust.clone()),
        };
        (workbench, warning)
    }
}

/// Makes one plugin, on this very thread.
pub(super) fn make(order: Order, workbench: &Workbench) -> Made {
    let name = order.name.clone();
    let claim = order.claim.clone();
    let file = order.file();
    // Hostile bytes are met here. A panic is that file's failure, and nobody else's.
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

/// What a panic says.
pub(super) fn panic_text(panicked: &(dyn Any + Send)) -> &str {
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
        let (wasm, origin) = match &self.source {
            Source::BuiltIn(wasm) => (Cow::Borrowed(*wasm), Origin::BuiltIn),
            Source::File(path, stamp) => (
                Cow::Owned(read(path, stamp, workbench.max_size)?),
                Origin::File(path.clone()),
            ),
        };
        let digest = sha256(&wasm);
        let signed = self.admit(&wasm, &digest, &manifest, &workbench.trust)?;
        let (compiled, compiled_in) = self.compile(&wasm, &digest, &workbench.compiler)?;
        Ok(Ready {
            plugin: Arc::new(Plugin {
                name: self.name,
                digest,
                size: wasm.len() as u64,
                origin,
                signed,
                manifest,
                prepared: compiled.prepared,
            }),
            compiled_in,
            warning: compiled.warning,
        })
    }

    /// Sees to it that this is the plugin that was meant, from whom it should be.
    fn admit(
        &self,
        wasm: &[u8],
        digest: &str,
        manifest: &Manifest,
        trust: &Trust,
    ) -> Result<Option<Signed>, NotMade> {
        let refuse = |reason| self.refuse(digest, reason);
        let pinned = manifest.sha256.as_deref().unwrap_or(digest);
        if pinned != digest {
            return Err(refuse(format!(
                "its sha256 is {digest}, and {name}.toml pins {pinned}; copy the plugin that was meant, or pin this one",
                name = self.name
            )));
        }
        let trust = match self.source {
            // It is trusted as the program is.
            Source::BuiltIn(_) => &Trust::Anyone,
            Source::File(..) => trust,
        };
        let signature = match (&self.signature, trust) {
            (None, _) | (_, Trust::Anyone) => None,
            (Some((path, stamp)), Trust::Keys(_)) => Some(read(path, stamp, MAX_SIGNATURE)?),
        };
        trust
            .check(self.name.as_str(), wasm, signature.as_deref())
            .map_err(|error| refuse(error.to_string()))
    }

    /// The plugin's code, and how long it took to come by.
    fn compile(
        &self,
        wasm: &[u8],
        digest: &str,
        compiler: &Compiler,
    ) -> Result<(Compiled, Duration), NotMade> {
        if let Some(serving) = self.serving.as_ref().filter(|one| one.digest == digest) {
            return Ok((serving.prepared.clone().into(), Duration::ZERO));
        }
        let begun = Instant::now();
        let is_wanted = || self.claim.strong_count() > 0;
        match compiler.prepare(wasm, digest, &is_wanted) {
            Ok(compiled) => Ok((compiled, begun.elapsed())),
            Err(CompileError::Withdrawn) => Err(NotMade::Withdrawn),
            Err(error @ CompileError::NoChild(_)) => Err(NotMade::Refused(Refusal {
                file: self.file(),
                reason: error.to_string(),
                fault: Fault::Passing,
            })),
            Err(
                error @ (CompileError::Refused(_)
                | CompileError::Time(_)
                | CompileError::Clock(_)
                | CompileError::Memory(_)
                | CompileError::Failed(_)
                | CompileError::Known(_)),
            ) => Err(self.refuse(digest, error.to_string())),
        }
    }

    /// For what is in the file, and no other.
    fn refuse(&self, digest: &str, reason: String) -> NotMade {
        NotMade::Refused(Refusal {
            file: self.file(),
            reason,
            fault: Fault::Content(digest.to_owned()),
        })
    }

    fn manifest(&self, ceiling: &Limits) -> Result<Manifest, NotMade> {
        let Some((path, stamp)) = &self.manifest else {
            return Ok(Manifest::without_file(ceiling));
        };
        let text = read(path, stamp, MAX_MANIFEST)?;
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
                fault: Fault::Passing,
            })),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a whole file into memory. What is checked, hashed and compiled is these very bytes: the file
/// may change under everybody's feet.
fn read(path: &Path, expected: &Stamp, max_size: u64) -> Result<Vec<u8>, NotMade> {
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
            Fault::Passing,
        )
    };
    let changed = || {
        refuse(
            "it changes while it is read; it is loaded once it is whole".to_owned(),
            Fault::Passing,
        )
    };
    // It was a regular file when it was seen. Were it a named pipe by now, opening it must not wait.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let is_expected = |file: &fs::File| -> Result<bool, NotMade> {
        Ok(Stamp::of(&file.metadata().map_err(failed)?) == *expected)
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
