//! One plugin by itself, without a directory that is served: for a task that is run here and now.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::order::{self, Claim, Made, NotMade, Order, Ready, Refusal, Source, Workbench};
use super::registry::Refused;
use super::scan::{FileState, MAX_MANIFEST, MAX_SIGNATURE, Stamp, state_of};
use super::{Plugin, PluginRules, built_in};
use crate::name::PluginName;
use crate::sandbox::Sandbox;

impl Plugin {
    /// Loads a file that lies anywhere, with the manifest beside it, under the checks that a plugin
    /// directory has. It blocks for as long as compiling takes.
    ///
    /// # Errors
    /// Why the file is no plugin.
    pub fn from_file(
        path: &Path,
        sandbox: Arc<Sandbox>,
        rules: &PluginRules,
    ) -> Result<Arc<Plugin>, Refused> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem
            .parse::<PluginName>()
            .map_err(|error| refused(path, error.to_string()))?;
        let source = Source::File(path.to_owned(), usable(path, rules.compile.max_file)?);
        let manifest = beside(path.with_extension("toml"), MAX_MANIFEST)?;
        let signature = beside(path.with_added_extension("minisig"), MAX_SIGNATURE)?;
        let claim = Arc::new(Claim);
        let order = Order {
            name,
            source,
            manifest,
            signature,
            serving: None,
            claim: Arc::downgrade(&claim),
        };
        make(order, sandbox, rules)
    }

    /// Loads a plugin that is part of the program. None: there is none of that name.
    ///
    /// # Errors
    /// When the ceiling leaves it nothing to run with.
    pub fn built_in(
        name: &PluginName,
        sandbox: Arc<Sandbox>,
        rules: &PluginRules,
    ) -> Option<Result<Arc<Plugin>, Refused>> {
        let (name, wasm) = built_in().into_iter().find(|(known, _)| known == name)?;
        let claim = Arc::new(Claim);
        let order = Order {
            name,
            source: Source::BuiltIn(wasm),
            manifest: None,
            signature: None,
            serving: None,
            claim: Arc::downgrade(&claim),
        };
        Some(make(order, sandbox, rules))
    }
}

/// Whoever calls holds the order's claim.
fn make(order: Order, sandbox: Arc<Sandbox>, rules: &PluginRules) -> Result<Arc<Plugin>, Refused> {
    // That nothing could be kept matters to whoever makes many.
    let (workbench, _) = Workbench::new(sandbox, rules);
    let Made { result, .. } = order::make(order, &workbench);
    match result {
        Ok(Ready { plugin, .. }) => Ok(plugin),
        Err(NotMade::Refused(Refusal { file, reason, .. })) => Err(Refused { file, reason }),
        Err(NotMade::Withdrawn) => unreachable!("the claim is held"),
    }
}

/// A file that may lie beside the plugin.
fn beside(path: PathBuf, max_size: u64) -> Result<Option<(PathBuf, Stamp)>, Refused> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let stamp = usable(&path, max_size)?;
    Ok(Some((path, stamp)))
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
