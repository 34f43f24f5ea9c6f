//! `scutwork plugin inspect`: all that a file tells of itself, and what its manifest makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::{Exit, Format, Global, Stopped, output};
use super::report::Report;
use crate::config::Config;
use crate::plugin::Plugin;
use crate::sandbox::limits::Limits;
use crate::units::{show_duration, show_size};

#[derive(Debug, Args)]
pub(in super::super) struct InspectArgs {
    /// The .wasm file; its manifest lies beside it
    file: PathBuf,
}

/// Runs the command.
pub(super) fn inspect(
    global: &Global,
    config: &Config,
    args: &InspectArgs,
) -> Result<Exit, Stopped> {
    let report = Report::of(config, &args.file)?;
    let settings = report
        .plugin
        .as_ref()
        .map(|plugin| settings(plugin, &args.file))
        .unwrap_or_default();
    match global.output {
        Format::Json => output::json(&as_json(&report, &settings)),
        Format::Text => show(&report, &settings),
    }
    Ok(if report.is_bad() {
        Exit::No
    } else {
        Exit::Done
    })
}

/// One value of a manifest.
struct Setting {
    key: &'static str,
    value: String,
    origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy)]
enum Origin {
    Default,
    Manifest,
    Ceiling,
}

impl Origin {
    fn word(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Manifest => "manifest",
            Origin::Ceiling => "ceiling",
        }
    }
}

fn settings(plugin: &Plugin, file: &Path) -> Vec<Setting> {
    let manifest: toml::Table = fs::read_to_string(file.with_extension("toml"))
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let is_set = |section: &str, key: &str| {
        let section = manifest.get(section).and_then(toml::Value::as_table);
        section.is_some_and(|section| section.contains_key(key))
    };
    let (limits, default) = (&plugin.manifest.limits, Limits::default());
    let limit = |key: &'static str, value: String, is_default: bool| {
        let name = key.trim_start_matches("limits.");
        let is_lowered = |text: &String| text.starts_with(&format!("{key} "));
        let origin = if plugin.manifest.lowered.iter().any(is_lowered) {
            Origin::Ceiling
        } else if is_set("limits", name) {
            Origin::Manifest
        } else if is_default {
            Origin::Default
        } else {
            Origin::Ceiling
        };
        Setting { key, value, origin }
    };
    let other = |section, name, key, value| Setting {
        key,
        value,
        origin: if is_set(section, name) {
            Origin::Manifest
        } else {
            Origin::Default
        },
    };
    let attempts = plugin.manifest.retry.max_attempts.to_string();
    let concurrency = match plugin.manifest.concurrency {
        Some(concurrency) => concurrency.to_string(),
        None => "as many as there are slots".to_owned(),
    };
    vec![
        limit(
            "limits.memory",
            show_size(limits.memory),
            limits.memory == default.memory,
        ),
        limit(
            "limits.cpu",
            show_duration(limits.cpu),
            limits.cpu == default.cpu,
        ),
        limit(
            "limits.timeout",
            show_duration(limits.timeout),
            limits.timeout == default.timeout,
        ),
        limit(
            "limits.output",
            show_size(limits.output),
            limits.output == default.output,
        ),
        other("retry", "max_attempts", "retry.max_attempts", attempts),
        other("run", "concurrency", "run.concurrency", concurrency),
    ]
}

fn show(report: &Report, settings: &[Setting]) {
    let mut lines = vec![
        ("file", report.file.display().to_string()),
        ("kind", report.kind()),
        ("size", show_size(report.size)),
    ];
    if let Some(plugin) = &report.plugin {
        lines.push(("name", plugin.name.to_string()));
        lines.push(("digest", plugin.digest.clone()));
    }
    if let Some(anatomy) = &report.anatomy {
        lines.extend(
            anatomy
                .producers
                .iter()
                .map(|said| ("made by", said.clone())),
        );
        lines.extend(
            anatomy
                .imports
                .iter()
                .map(|import| ("imports", import.clone())),
        );
        lines.extend(
            anatomy
                .exports
                .iter()
                .map(|export| ("exports", export.clone())),
        );
    }
    for Setting { key, value, origin } in settings {
        lines.push(("manifest", format!("{key} = {value} ({})", origin.word())));
    }
    for (name, value) in lines {
        output::line(&format!("{name:9} {}", output::one_line(&value, 2000)));
    }
    if report.is_bad() {
        output::complain("it would not serve; `scutwork plugin check` says why");
    }
}

fn as_json(report: &Report, settings: &[Setting]) -> Value {
    let mut json = report.as_json();
    let manifest: Map<String, Value> = settings
        .iter()
        .map(|Setting { key, value, origin }| {
            let value = json!({ "value": value, "from": origin.word() });
            ((*key).to_owned(), value)
        })
        .collect();
    json["manifest"] = Value::Object(manifest);
    json["name"] = json!(report.plugin.as_ref().map(|plugin| plugin.name.as_str()));
    json["digest"] = json!(report.plugin.as_ref().map(|plugin| &plugin.digest));
    let anatomy = report.anatomy.as_ref();
    json["exports"] = json!(anatomy.map(|anatomy| &anatomy.exports));
    json["producers"] = json!(anatomy.map(|anatomy| &anatomy.producers));
    json
}
