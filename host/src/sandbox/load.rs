//! The one place where bytes become code that this process runs, and the one `unsafe` of the library.

#![allow(
    unsafe_code,
    reason = "native code cannot be checked; see the proof below"
)]

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use super::compile::NativeCode;
use super::prepare::{Code, PrepareError, not_compiled};

/// Maps native code into this process.
///
/// # Errors
/// When another engine compiled it, or it asks for more than the pool has.
pub(super) fn load(engine: &Engine, code: &NativeCode) -> Result<Code, PrepareError> {
    let bytes = code.bytes();
    // SAFETY: `deserialize` wants bytes that `Engine::precompile_component` or its like for modules
    // made, unchanged. A `NativeCode` is made in three places, and nowhere outside this crate:
    // - `sandbox::compile`, by these very calls;
    // - `plugin::compiler::child`, from the pipe of a process that runs this same program and does
    //   nothing but such a call. Nobody else holds the pipe's other end;
    // - `plugin::compiler::cache`, from a file that only this user can write, in a directory that
    //   only this user can write, whose sha256 is the one it was written with, under the name of the
    //   very plugin and engine that are asked for.
    // The bytes are in this process's own memory, so nobody changes them after that, and wasmtime
    // copies them. That a version or a setting differs it notices by itself, and refuses.
    let loaded = unsafe {
        match Engine::detect_precompiled(bytes) {
            Some(Precompiled::Module) => Module::deserialize(engine, bytes).map(Code::Module),
            // What is neither is refused by its first bytes.
            Some(Precompiled::Component) | None => {
                Component::deserialize(engine, bytes).map(Code::Component)
            }
        }
    };
    loaded.map_err(|error| not_compiled(&error))
}
