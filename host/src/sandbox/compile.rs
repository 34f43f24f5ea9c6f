//! From WebAssembly to native code. Here hostile bytes meet the compiler: who calls it bounds its time
//! and its memory.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::Engine;

use super::prepare::{self, Kind, PrepareError};
use super::{Sandbox, engine};

/// Native code that wasmtime's compiler made for this program's engines.
///
/// Whoever makes one vouches for that: it runs with all the rights of this process.
#[derive(Debug)]
pub struct NativeCode(Vec<u8>);

/// What code is compiled for: all that an engine's code depends on and settings can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The most memory that a run can have, in bytes: what is reserved for it decides how code
    /// checks its bounds.
    memory: u64,
}

impl NativeCode {
    /// Takes bytes for native code. They must come from [`Target::compile`], of this very version of
    /// the program, by a way on which nobody else could change them.
    pub(crate) fn vouched_for(bytes: Vec<u8>) -> NativeCode {
        NativeCode(bytes)
    }

    /// The code, as it can be kept.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Target {
    /// Compiles a plugin. It blocks, and keeps processors busy for as long as compiling takes: from a
    /// hundredth of a second to a minute, by the size.
    ///
    /// # Errors
    /// When these bytes are no plugin; the error says why, and what to do.
    pub fn compile(self, wasm: &[u8]) -> Result<NativeCode, PrepareError> {
        let engine =
            engine::for_compiling(self.memory).map_err(|error| prepare::not_compiled(&error))?;
        compile(&engine, wasm)
    }
}

impl Sandbox {
    /// What code has to be compiled for, so that this sandbox can load it.
    pub fn target(&self) -> Target {
        Target {
            memory: self.house.ceiling.memory,
        }
    }

    /// A name for all that decides whether code fits this sandbox: the compiler's version and
    /// settings, the processor, and what it was told to compile for.
    pub fn compatibility(&self) -> String {
        let mut hasher = Sha256Hasher(Sha256::new());
        self.house
            .engine
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        hasher.hex()
    }
}

/// Compiles with an engine that is there already.
pub(super) fn compile(engine: &Engine, wasm: &[u8]) -> Result<NativeCode, PrepareError> {
    match prepare::look(wasm)? {
        Kind::Component => engine.precompile_component(wasm),
        Kind::Module => engine.precompile_module(wasm),
    }
    .map(NativeCode)
    .map_err(|error| prepare::not_compiled(&error))
}

/// The standard library's hashes may differ from one build to the next; this one's do not.
struct Sha256Hasher(Sha256);

impl Sha256Hasher {
    fn hex(self) -> String {
        self.0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
