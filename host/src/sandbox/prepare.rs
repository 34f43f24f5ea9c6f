//! [`Prepared`]: the code of a plugin or command, linked and ready, or [`PrepareError`]: in plain words,
//! why not.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use scutwork_wasi::Held;
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use wasmtime::{InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::bounds;
use super::contract::{HANDLER, PluginPre, VERSION};
use super::diagnosis;
use super::guest::Linkers;
use super::voice::cut;

/// The interface that a command exports, without its version.
const RUN: &str = "wasi:cli/run";
/// The function that a command's core module exports.
pub(super) const START: &str = "_start";
/// Where a command's core module imports from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// What an error repeats of a name from the file, in bytes.
const MAX_NAME: usize = 100;
/// What an error repeats of the compiler's words, which hold such names, in bytes.
const MAX_DETAIL: usize = 400;

/// A plugin that is ready to run as often as one likes. Cheap to clone.
#[derive(Clone)]
pub struct Prepared(pub(super) Arc<Runnable>);

/// What a plugin is, and so how it is called.
pub(super) enum Runnable {
    /// A component of the contract.
    Plugin(PluginPre<Held>),
    /// A component that is a WASI command.
    Command(CommandPre<Held>),
    /// A core module that is one.
    Module(InstancePre<Held>),
}

impl Prepared {
    /// Whether it is a WASI command, which has the task on stdin and answers on stdout.
    pub fn is_command(&self) -> bool {
        match *self.0 {
            Runnable::Plugin(_) => false,
            Runnable::Command(_) | Runnable::Module(_) => true,
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match *self.0 {
            Runnable::Plugin(_) => "plugin",
            Runnable::Command(_) => "command",
            Runnable::Module(_) => "command module",
        };
        f.debug_tuple("Prepared").field(&kind).finish()
    }
}

/// Why a file does not become a plugin: what is wrong and what to do, for the operator who put it
/// there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PrepareError {
    /// No bytes at all.
    #[error(
        "the file is empty; copy it again, to another name first, and rename it when it is whole"
    )]
    Empty,
    /// Native code, which no sandbox holds.
    #[error(
        "this is precompiled native code, which is never loaded; give the .wasm it was made from"
    )]
    Precompiled,
    /// Something else altogether.
    #[error("this is not WebAssembly: it does not begin as such a file does{hint}")]
    NotWasm {
        /// What it looks like instead.
        hint: Cow<'static, str>,
    },
    /// It begins well and ends too early.
    #[error(
        "the file is cut short ({detail}); copy it again, to another name first, and rename it when it is whole"
    )]
    CutShort {
        /// Where it ends.
        detail: String,
    },
    /// A module without the component around it, and no command either.
    #[error(
        "this is a core module that is no command: it exports no function `{START}` without parameters{hint}; build a plugin for the target wasm32-wasip2, and a command with a `main` for wasm32-wasip1"
    )]
    CoreModule {
        /// What it seems to be.
        hint: String,
    },
    /// A module that needs a host of another kind.
    #[error(
        "the core module imports `{name}` from `{from}`{hint}; a command may import from `{PREVIEW_1}` alone, and a plugin is a component, built for the target wasm32-wasip2"
    )]
    ForeignModule {
        /// Where it looks.
        from: String,
        /// What for.
        name: String,
        /// What it seems to be made for.
        hint: Cow<'static, str>,
    },
    /// Broken, or in need of a feature that is off.
    #[error("this is not valid WebAssembly, or needs a feature that is off: {detail}")]
    Invalid {
        /// What the compiler says.
        detail: String,
    },
    /// More memories, tables or instances than a run may have.
    #[error("the plugin asks for more than one run may have: {detail}")]
    TooLarge {
        /// What it asks for, and how much there is.
        detail: String,
    },
    /// The fault is the host's: it may not make the code executable.
    #[error(
        "this process may not make memory executable, which every plugin takes; set MemoryDenyWriteExecute=no in its systemd unit, or allow it mprotect with PROT_EXEC"
    )]
    NotExecutable,
    /// Nothing to call.
    #[error(
        "the plugin exports no `{HANDLER}@{VERSION}`{found}; build it for the world `plugin` of scutwork:task@{VERSION}, or as a command"
    )]
    NoHandler {
        /// What it exports in that one's place.
        found: String,
    },
    /// Something that this host has not.
    #[error(
        "the plugin imports `{import}`, which this host does not provide{hint}; it provides scutwork:task@{VERSION}, WASI 0.2 and wasi:http 0.2 ({detail})"
    )]
    UnknownImport {
        /// What it wants.
        import: String,
        /// What it seems to be made for, or to mean.
        hint: String,
        /// What exactly does not match.
        detail: String,
    },
}

/// Code in this process, and nothing that is linked to it.
pub(super) enum Code {
    Component(Component),
    Module(Module),
}

/// Links what was compiled to the host's functions.
pub(super) fn link(linkers: &Linkers, code: &Code) -> Result<Prepared, PrepareError> {
    let required = match code {
        Code::Component(component) => component.resources_required(),
        Code::Module(module) => Some(module.resources_required()),
    };
    // A pool has refused it before.
    if let Some(detail) = required.and_then(|required| bounds::exceeded(&required)) {
        return Err(PrepareError::TooLarge { detail });
    }
    let runnable = match code {
        Code::Component(component) => link_component(linkers, component)?,
        Code::Module(module) => link_module(linkers, module)?,
    };
    Ok(Prepared(Arc::new(runnable)))
}

fn link_component(linkers: &Linkers, component: &Component) -> Result<Runnable, PrepareError> {
    let exported = Exported::of(component);
    if let Exported::Other { found } = exported {
        return Err(PrepareError::NoHandler { found });
    }
    let linked = linkers
        .component
        .instantiate_pre(component)
        .map_err(|error| not_linked(&error))?;
    let other_shape = |error: wasmtime::Error| PrepareError::NoHandler {
        found: format!(" of this shape ({})", error.root_cause()),
    };
    match exported {
        Exported::Run => CommandPre::new(linked).map(Runnable::Command),
        Exported::Handler | Exported::Other { .. } => PluginPre::new(linked).map(Runnable::Plugin),
    }
    .map_err(other_shape)
}

fn link_module(linkers: &Linkers, module: &Module) -> Result<Runnable, PrepareError> {
    // Told first: what was made for another host has mostly no `_start` either.
    if let Some(import) = module.imports().find(|import| import.module() != PREVIEW_1) {
        return Err(PrepareError::ForeignModule {
            from: cut(import.module(), MAX_NAME).to_owned(),
            name: cut(import.name(), MAX_NAME).to_owned(),
            hint: diagnosis::module_import(import.module(), import.name(), &exports(module)).into(),
        });
    }
    let is_start = |kind: wasmtime::ExternType| {
        kind.func()
            .is_some_and(|kind| kind.params().len() == 0 && kind.results().len() == 0)
    };
    if !module.get_export(START).is_some_and(is_start) {
        return Err(PrepareError::CoreModule {
            hint: diagnosis::module_without_start(&exports(module)).to_owned(),
        });
    }
    linkers
        .module
        .instantiate_pre(module)
        .map(Runnable::Module)
        .map_err(|error| not_linked(&error))
}

fn exports(module: &Module) -> Vec<&str> {
    module.exports().map(|export| export.name()).collect()
}

/// What a file is, by its first bytes.
pub(super) enum Kind {
    Component,
    Module,
}

/// What the first bytes tell, before any compiler sees the rest.
pub(super) fn look(wasm: &[u8]) -> Result<Kind, PrepareError> {
    const MAGIC: &[u8] = b"\0asm";
    const CORE: &[u8] = &[1, 0, 0, 0];
    if wasm.is_empty() {
        return Err(PrepareError::Empty);
    }
    if wasm.starts_with(b"\x7fELF") {
        return Err(PrepareError::Precompiled);
    }
    if !wasm.starts_with(MAGIC) && !MAGIC.starts_with(wasm) {
        return Err(PrepareError::NotWasm {
            hint: hint(wasm).into(),
        });
    }
    match wasm.get(4..8) {
        None => Err(PrepareError::CutShort {
            detail: format!("it has {} bytes", wasm.len()),
        }),
        Some(CORE) => Ok(Kind::Module),
        Some(_) => Ok(Kind::Component),
    }
}

fn hint(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"(component") || text.starts_with(b"(module") {
        "; it is WebAssembly as text, which has to be assembled first"
    } else if text.starts_with(b"<") {
        "; it looks like a web page, as a download that went wrong does"
    } else if bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(b"PK") {
        "; it looks like an archive, which has to be unpacked first"
    } else {
        ""
    }
}

/// The compiler has no types for what went wrong, so its words are looked at.
pub(super) fn not_compiled(error: &wasmtime::Error) -> PrepareError {
    let detail = cut(&format!("{error:#}"), MAX_DETAIL).to_owned();
    if detail.contains("unexpected end") || detail.contains("out of bounds (bound") {
        PrepareError::CutShort {
            detail: error.root_cause().to_string(),
        }
    } else if detail.contains("make memory executable") {
        PrepareError::NotExecutable
    } else if detail.contains("exceeds the") || detail.contains("exceed the") {
        PrepareError::TooLarge {
            detail: bounds::explain(&detail).unwrap_or(detail),
        }
    } else {
        PrepareError::Invalid { detail }
    }
}

/// What a component exports to be called by.
enum Exported {
    Handler,
    Run,
    /// Nothing that this host calls, and what is there in its place.
    Other {
        found: String,
    },
}

impl Exported {
    fn of(component: &Component) -> Exported {
        let wanted = format!("{HANDLER}@{VERSION}");
        if component.get_export_index(None, &wanted).is_some() {
            return Exported::Handler;
        }
        let kind = component.component_type();
        let mut found = String::new();
        for (name, _) in kind.exports(component.engine()) {
            if name.starts_with(HANDLER) {
                found = format!(", but `{name}`: it was built for another version of the contract");
            } else if name.starts_with(&format!("{RUN}@0.2.")) && found.is_empty() {
                return Exported::Run;
            } else if name.starts_with(RUN) && found.is_empty() {
                found = format!(", but `{name}`: it is a command for another version of WASI");
            }
        }
        Exported::Other { found }
    }
}

fn not_linked(error: &wasmtime::Error) -> PrepareError {
    let message = error.to_string();
    // "component imports instance `a:b/c`, but a matching implementation was not found in the linker",
    // and of a module "unknown import: `a::b` has not been defined"
    let import = message.split('`').nth(1).unwrap_or(&message);
    let hint = match import.split_once("::") {
        Some((from, name)) => diagnosis::module_import(from, name, &[]),
        None => diagnosis::component_import(import),
    };
    PrepareError::UnknownImport {
        import: cut(import, MAX_NAME).to_owned(),
        hint,
        detail: cut(&error.root_cause().to_string(), MAX_DETAIL).to_owned(),
    }
}
