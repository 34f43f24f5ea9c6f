//! [`Prepared`]: a plugin compiled and linked, or [`PrepareError`]: in plain words, why not.

use std::fmt;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::contract::{HANDLER, PluginPre, VERSION};
use super::guest::Guest;

/// A plugin that is ready to run as often as one likes. Cheap to clone.
#[derive(Clone)]
pub struct Prepared(pub(super) Arc<PluginPre<Guest>>);

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

/// Why a file does not become a plugin: what is wrong and what to do, for the operator who put it
/// there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
        hint: &'static str,
    },
    /// It begins well and ends too early.
    #[error(
        "the file is cut short ({detail}); copy it again, to another name first, and rename it when it is whole"
    )]
    CutShort {
        /// Where it ends.
        detail: String,
    },
    /// A module without the component around it.
    #[error(
        "this is a core module, and a plugin is a component; build it for the target wasm32-wasip2"
    )]
    CoreModule,
    /// Broken, or in need of a feature that is off.
    #[error("this is not a valid component, or needs a feature that is off: {detail}")]
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
    /// Nothing to call.
    #[error(
        "the plugin exports no `{HANDLER}@{VERSION}`{found}; build it for the world `plugin` of scutwork:task@{VERSION}"
    )]
    NoHandler {
        /// What it exports in that one's place.
        found: String,
    },
    /// Something that this host has not.
    #[error(
        "the plugin imports `{import}`, which this host does not provide; it provides scutwork:task@{VERSION}, WASI 0.2 and wasi:http 0.2 ({detail})"
    )]
    UnknownImport {
        /// What it wants.
        import: String,
        /// What exactly does not match.
        detail: String,
    },
}

/// Compiles a component and links its imports.
pub(super) fn prepare(
    engine: &Engine,
    linker: &Linker<Guest>,
    wasm: &[u8],
) -> Result<Prepared, PrepareError> {
    look(wasm)?;
    let component = Component::from_binary(engine, wasm).map_err(|error| not_compiled(&error))?;
    find_handler(engine, &component)?;
    let linked = linker
        .instantiate_pre(&component)
        .map_err(|error| not_linked(&error))?;
    let plugin = PluginPre::new(linked).map_err(|error| PrepareError::NoHandler {
        found: format!(" of this shape ({})", error.root_cause()),
    })?;
    Ok(Prepared(Arc::new(plugin)))
}

/// What the first bytes tell.
fn look(wasm: &[u8]) -> Result<(), PrepareError> {
    const MAGIC: &[u8] = b"\0asm";
    const CORE: &[u8] = &[1, 0, 0, 0];
    if wasm.is_empty() {
        return Err(PrepareError::Empty);
    }
    if wasm.starts_with(b"\x7fELF") {
        return Err(PrepareError::Precompiled);
    }
    if !wasm.starts_with(MAGIC) && !MAGIC.starts_with(wasm) {
        return Err(PrepareError::NotWasm { hint: hint(wasm) });
    }
    match wasm.get(4..8) {
        None => Err(PrepareError::CutShort {
            detail: format!("it has {} bytes", wasm.len()),
        }),
        Some(CORE) => Err(PrepareError::CoreModule),
        Some(_) => Ok(()),
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
fn not_compiled(error: &wasmtime::Error) -> PrepareError {
    let detail = format!("{error:#}");
    if detail.contains("unexpected end") || detail.contains("out of bounds (bound") {
        PrepareError::CutShort {
            detail: error.root_cause().to_string(),
        }
    } else if detail.contains("exceeds the") || detail.contains("exceed the") {
        PrepareError::TooLarge { detail }
    } else {
        PrepareError::Invalid { detail }
    }
}

fn find_handler(engine: &Engine, component: &Component) -> Result<(), PrepareError> {
    let wanted = format!("{HANDLER}@{VERSION}");
    if component.get_export_index(None, &wanted).is_some() {
        return Ok(());
    }
    let kind = component.component_type();
    let mut found = String::new();
    for (name, _) in kind.exports(engine) {
        if name.starts_with(HANDLER) {
            found = format!(", but `{name}`: it was built for another version of the contract");
        } else if name.starts_with("wasi:cli/run") && found.is_empty() {
            found = format!(", but `{name}`: it is a command");
        }
    }
    Err(PrepareError::NoHandler { found })
}

fn not_linked(error: &wasmtime::Error) -> PrepareError {
    let message = error.to_string();
    // "component imports instance `a:b/c`, but a matching implementation was not found in the linker"
    let import = message.split('`').nth(1).unwrap_or(&message).to_owned();
    PrepareError::UnknownImport {
        import,
        detail: error.root_cause().to_string(),
    }
}
