//! One plugin by itself, without a directory that is served: for a task that is run here and now.

use std::path::Path;
use std::sync::Arc;

use super::compile::{self, Claim, Made, NotMade, Order, Ready, Refusal, Source, Workbench};
use super::registry::{MAX_SIZE, Refused};
use super::scan::{FileState, MAX_MANIFEST, Stamp, state_of};
use super::{Plugin, built_in};
use crate::name::PluginName;
use crate::sandbox::Sandbox;
use crate::sandbox::limits::Limits;

impl Plugin {
    /// Loads a file that lies anywhere, with the manifest beside it, under the checks that a plugin
    /// directory has. It blocks for as long as compiling takes.
    ///
    /// # Errors
    /// Why the file is no plugin.
    pub fn from_file(
        path: &Path,
        sandbox: Arc<Sandbox>,
        ceiling: Limits,
    ) -> Result<Arc<Plugin>, Refused> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem
            .parse::<PluginName>()
            .map_err(|error| refused(path, error.to_string()))?;
        let source = Source::File(path.to_owned(), usable(path, MAX_SIZE)?);
        let beside = path.with_extension("toml");
        let manifest = match beside.symlink_metadata() {
            Ok(_) => {
                let stamp = usable(&beside, MAX_MANIFEST)?;
                Some((beside, stamp))
            }
            Err(_) => None,
        };
        make(name, source, manifest, sandbox, ceiling)
    }

    /// Loads a plugin that is part of the program. None: there is none of that name.
    ///
    /// # Errors
    /// When the ceiling leaves it nothing to run with.
    pub fn built_in(
        name: &PluginName,
        sandbox: Arc<Sandbox>,
        ceiling: Limits,
    ) -> Option<Result<Arc<Plugin>, Refused>> {
        let (name, wasm) = built_in().into_iter().find(|(known, _)| known == name)?;
        Some(make(name, Source::BuiltIn(wasm), None, sandbox, ceiling))
    }
}

fn make(
    name: PluginName,
    source: Source,
    manifest: Option<(std::path::PathBuf, Stamp)>,
    sandbox: Arc<Sandbox>,
    ceiling: Limits,
) -> Result<Arc<Plugin>, Refused> {
    let claim = Arc::new(Claim);
    let order = Order {
        name,
        source,
        manifest,
        serving: None,
        claim: Arc::downgrade(&claim),
    };
    let Made { result, .. } = compile::make(
        order,
        &Workbench {
            sandbox,
            ceiling,
            max_size: MAX_SIZE,
        },
    );
    match result {
        Ok(Ready { plugin, .. }) => Ok(plugin),
        Err(NotMade::Refused(Refusal { file, reason, .. })) => Err(Refused { file, reason }),
        Err(NotMade::Withdrawn) => unreachable!("the claim is held above"),
    }
}

fn usable(path: &Path, max_size: u64) -> Result<Stamp, Refused> {
    match state_of(path, max_size) {
        FileState::Regular(stamp) => Ok(stamp),
        FileState::Unusable(reason) => Err(refused(path, reason)),
    }
}

fn refused(path: &Path, reason: String) -> Refused {
    Refused {
        file: path.display().to_string(),
        reason,
    }
}
