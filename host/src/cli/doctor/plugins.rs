//! Whether the plugin directory can be read, and every file in it serves as it asks to.

use std::sync::Arc;

use super::finding::Finding;
use crate::cli::Stopped;
use crate::cli::worker::{registry, sandbox};
use crate::config::Config;
use crate::event::Observers;
use crate::plugin::Plugin;
use crate::plugin::registry::Directory;

const CHECK: &str = "plugins";

/// The plugins that serve, and what there is to say of them.
///
/// # Errors
/// When this machine cannot run plugins at all.
pub(super) fn check(config: &Config) -> Result<(Vec<Arc<Plugin>>, Vec<Finding>), Stopped> {
    let sandbox = Arc::new(sandbox(config, 1)?);
    let registry = match registry(config, &sandbox, &Observers::default()) {
        Ok(registry) => registry,
        Err(Stopped { reason, .. }) => {
            let finding = Finding::fail_as_told(CHECK, format!("{reason:#}"));
            return Ok((Vec::new(), vec![finding]));
        }
    };
    let plugins = registry.list();
    let mut findings = vec![directory(&config.plugins, plugins.len())];
    for file in registry.refused() {
        findings.push(Finding::fail(
            CHECK,
            format!("{} is refused: {}", file.file, file.reason),
            "tasks that name it wait, and become dead letters in the end",
        ));
    }
    for plugin in &plugins {
        for lowered in &plugin.manifest.lowered {
            findings.push(Finding::warn(
                CHECK,
                format!("plugin `{}`: {lowered}", plugin.name),
                format!(
                    "lower it in {}.toml, or raise the ceiling in the [limits] of scutwork.toml",
                    plugin.name
                ),
            ));
        }
    }
    Ok((plugins, findings))
}

fn directory(directory: &Directory, serving: usize) -> Finding {
    match directory {
        Directory::Usual(path) if !path.exists() => Finding::warn(
            CHECK,
            format!(
                "there is no directory {}, so only what is built in serves",
                path.display()
            ),
            "make it, or name another with --plugins",
        ),
        Directory::Usual(path) | Directory::Named(path) => {
            Finding::ok(CHECK, format!("{serving} serve, from {}", path.display()))
        }
    }
}
