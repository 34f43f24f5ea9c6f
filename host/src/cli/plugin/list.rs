//! `scutwork plugin list`: which plugins a worker would serve, and which files it would refuse.

use std::sync::Arc;

use serde_json::json;

use super::super::worker::{registry, sandbox};
use super::super::{Exit, Format, Global, Stopped, output};
use crate::config::Config;
use crate::event::Observers;
use crate::plugin::Plugin;
use crate::units::{show_duration, show_size};

/// Runs the command.
pub(super) fn list(global: &Global, config: &Config) -> Result<Exit, Stopped> {
    let sandbox = Arc::new(sandbox(config, 1)?);
    let registry = registry(config, &sandbox, &Observers::default())?;
    let (plugins, refused) = (registry.list(), registry.refused());
    match global.output {
        Format::Json => output::json(&json!({
            "plugins": plugins.iter().map(|plugin| as_json(plugin)).collect::<Vec<_>>(),
            "refused": refused,
        })),
        Format::Text => {
            let rows = plugins.iter().map(|plugin| as_row(plugin));
            output::table(
                &std::iter::once(HEAD.map(str::to_owned))
                    .chain(rows)
                    .collect::<Vec<_>>(),
            );
            for file in &refused {
                output::complain(&format!(
                    "{}: {}",
                    file.file,
                    output::one_line(&file.reason, 2000)
                ));
            }
        }
    }
    Ok(if refused.is_empty() {
        Exit::Done
    } else {
        Exit::No
    })
}

const HEAD: [&str; 8] = [
    "PLUGIN", "DIGEST", "SIZE", "MEMORY", "CPU", "TIMEOUT", "ATTEMPTS", "ORIGIN",
];

fn as_row(plugin: &Plugin) -> [String; 8] {
    let limits = &plugin.manifest.limits;
    [
        plugin.name.to_string(),
        plugin.digest.chars().take(12).collect(),
        show_size(plugin.size),
        show_size(limits.memory),
        show_duration(limits.cpu),
        show_duration(limits.timeout),
        plugin.manifest.retry.max_attempts.to_string(),
        plugin.origin.to_string(),
    ]
}

fn as_json(plugin: &Plugin) -> serde_json::Value {
    let limits = &plugin.manifest.limits;
    json!({
        "name": plugin.name.as_str(),
        "digest": plugin.digest,
        "size": plugin.size,
        "origin": plugin.origin.to_string(),
        "signed": plugin.signed,
        "limits": {
            "memory": limits.memory,
            "cpu_ms": limits.cpu.as_millis(),
            "timeout_ms": limits.timeout.as_millis(),
            "output": limits.output,
        },
        "max_attempts": plugin.manifest.retry.max_attempts,
        "concurrency": plugin.manifest.concurrency,
        "lowered": plugin.manifest.lowered,
    })
}
