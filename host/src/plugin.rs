//! [`Plugin`]: a compiled component with its manifest and digest, immutable; and the [`Registry`] of
//! those that serve.

pub mod anatomy;
pub mod compiler;
pub mod embedded;
mod loader;
mod makers;
pub mod manifest;
mod order;
pub mod registry;
mod scan;
mod single;
pub mod trust;
pub mod watch;

use std::fmt;
use std::path::PathBuf;

pub use manifest::Manifest;
pub use registry::{Refused, Registry};

use self::compiler::CompileSettings;
use self::trust::{Signed, Trust};
use crate::name::PluginName;
use crate::sandbox::{Limits, Prepared};

/// A plugin that serves. A new version is another value: runs of this one go on with it.
#[derive(Clone)]
pub struct Plugin {
    /// What messages call it by.
    pub name: PluginName,
    /// The sha256 of its bytes, in hex.
    pub digest: String,
    /// The size of its file, in bytes.
    pub size: u64,
    /// Where it came from.
    pub origin: Origin,
    /// Who signed it. None: nobody asked.
    pub signed: Option<Signed>,
    /// What it is granted and limited to.
    pub manifest: Manifest,
    /// What the sandbox made of it.
    pub prepared: Prepared,
}

/// What every plugin is made by and held to.
#[derive(Clone, Debug)]
pub struct PluginRules {
    /// The most that a manifest can set.
    pub ceiling: Limits,
    /// How it is compiled.
    pub compile: CompileSettings,
    /// Whose signature it must bear.
    pub trust: Trust,
}

impl Default for PluginRules {
    fn default() -> Self {
        PluginRules {
            ceiling: Limits::CEILING,
            compile: CompileSettings::default(),
            trust: Trust::Anyone,
        }
    }
}

/// Where a plugin came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is part of the program.
    BuiltIn,
    /// A file in the plugin directory.
    File(PathBuf),
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("origin", &self.origin)
            .field("signed", &self.signed)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built in"),
            Origin::File(path) => path.display().fmt(f),
        }
    }
}

/// What serves unless the directory says otherwise.
fn built_in() -> Vec<(PluginName, &'static [u8])> {
    // The rest of what is embedded is for the demo and the tests.
    let dots = "dots".parse().expect("letters make a name");
    vec![(dots, embedded::dots())]
}
