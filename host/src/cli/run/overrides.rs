//! `--set KEY=VALUE`: values of the manifest that hold for one run.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::super::Stopped;
use crate::plugin::{Manifest, Origin, Plugin};
use crate::sandbox::Limits;

/// One value: `limits.memory=128MiB`.
#[derive(Clone, Debug)]
pub(in super::super) struct Override {
    section: String,
    key: String,
    value: toml::Value,
}

/// Reads one. What is no TOML is a text, so that sizes and durations need no quotes.
pub(super) fn parse(text: &str) -> Result<Override, String> {
    let example = || format!("{text:?} sets nothing; write for example limits.memory=128MiB");
    let (path, value) = text.split_once('=').ok_or_else(example)?;
    let (section, key) = path.split_once('.').ok_or_else(example)?;
    let value = match value.parse::<toml::Value>() {
        Ok(value) => value,
        Err(_) => toml::Value::String(value.to_owned()),
    };
    Ok(Override {
        section: section.to_owned(),
        key: key.to_owned(),
        value,
    })
}

/// The plugin with these values in its manifest, under the same checks.
pub(super) fn apply(
    plugin: &Plugin,
    overrides: &[Override],
    ceiling: &Limits,
) -> Result<Arc<Plugin>, Stopped> {
    let mut manifest = toml::Table::new();
    if let Origin::File(file) = &plugin.origin
        && let Ok(text) = fs::read_to_string(file.with_extension("toml"))
    {
        manifest = text.parse().map_err(Stopped::usage)?;
    }
    for Override {
        section,
        key,
        value,
    } in overrides
    {
        let section = manifest
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(section) = section {
            section.insert(key.clone(), value.clone());
        }
    }
    let text = manifest.to_string();
    let manifest = Manifest::parse(&text, Path::new("--set"), ceiling)
        .map_err(|error| Stopped::usage(format!("--set: {}", error.message)))?;
    Ok(Arc::new(Plugin {
        manifest,
        ..plugin.clone()
    }))
}
