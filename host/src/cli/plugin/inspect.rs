//! `scutwork plugin inspect`: all that a file tells of itself, and what its manifest makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use super::super::{Exit, Format, Global, Stopped, output};
use super::report::Report;
use crate::config::Config;
use crate::plugin::Plugin;
use crate::plugin::trust::{Seal, Signed};
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
    let seal = seal(config, &args.file)?;
    match global.output {
        Format::Json => output::json(&as_json(&report, &settings, &seal)),
        Format::Text => show(&report, &settings, &seal),
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

/// The signature beside a file.
fn seal(config: &Config, file: &Path) -> Result<Seal, Stopped> {
    let wasm = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let beside = file.with_added_extension("minisig");
    let signature = match fs::read(&beside) {
        Ok(signature) => Some(signature),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let read = Err(error).with_context(|| format!("cannot read {}", beside.display()));
            return read.map_err(Stopped::from);
        }
    };
    Ok(Seal::of(&config.trust, &wasm, signature.as_deref()))
}

/// The signature in words, and as a program reads it: the standing, the key, the comment.
fn sealed(seal: &Seal) -> (String, [Option<&str>; 3]) {
    match seal {
        Seal::Missing => ("none".to_owned(), [Some("missing"), None, None]),
        Seal::Unreadable => (
            "there is a .minisig beside it, and it is none of minisign's".to_owned(),
            [Some("unreadable"), None, None],
        ),
        Seal::Unasked(key) => (
            format!("by key {key}, which nobody checks: scutwork.toml has no trust.keys"),
            [Some("unchecked"), Some(key), None],
        ),
        Seal::Trusted(Signed { key, comment }) => (
            format!("by key {key}, which is trusted: {comment}"),
            [Some("trusted"), Some(key), Some(comment)],
        ),
        Seal::Stranger(key) => (
            format!("by key {key}, which is not among trust.keys in scutwork.toml"),
            [Some("untrusted"), Some(key), None],
        ),
        Seal::Wrong(key) => (
            format!("by key {key}, and wrong: the file or its signature was changed since"),
            [Some("wrong"), Some(key), None],
        ),
    }
}

fn show(report: &Report, settings: &[Setting], seal: &Seal) {
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
    lines.push(("signature", sealed(seal).0));
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

fn as_json(report: &Report, settings: &[Setting], seal: &Seal) -> Value {
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
    let [standing, key, comment] = sealed(seal).1;
    json["signature"] = json!({ "standing": standing, "key": key, "comment": comment });
    let anatomy = report.anatomy.as_ref();
    json["exports"] = json!(anatomy.map(|anatomy| &anatomy.exports));
    json["producers"] = json!(anatomy.map(|anatomy| &anatomy.producers));
    json
}
