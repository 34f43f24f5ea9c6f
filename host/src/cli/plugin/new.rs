//! `scutwork plugin new`: a folder with a plugin that builds as it stands. It asks nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::super::{Exit, Format, Global, Stopped, output};
use super::language::Language;
use super::template::Template;
use crate::name::PluginName;

#[derive(Debug, Args)]
pub(in super::super) struct NewArgs {
    /// The plugin's name, and the folder's
    name: String,
    /// What it is written in
    #[arg(long, value_enum)]
    lang: Language,
    /// Make a WASI command, with the payload on stdin and the output on stdout
    #[arg(long)]
    command: bool,
    /// Where to make the folder [default: here]
    #[arg(long = "in", value_name = "DIR")]
    within: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn new(global: &Global, args: &NewArgs) -> Result<Exit, Stopped> {
    let name: PluginName = args.name.parse().map_err(Stopped::usage)?;
    if let Some(bare) = name.as_str().strip_suffix(".wasm") {
        return Err(Stopped::usage(format!(
            "a plugin's name is its file's without .wasm; use {bare}"
        )));
    }
    let kind = args.lang.kind(args.command).map_err(Stopped::usage)?;
    let folder = match &args.within {
        Some(within) => within.join(name.as_str()),
        None => PathBuf::from(name.as_str()),
    };
    refuse_what_is_there(&folder)?;
    for (path, text) in Template::of(args.lang, kind).files(&name) {
        let path = folder.join(path);
        write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match global.output {
        Format::Json => output::json(&json!({ "folder": folder, "name": name.as_str() })),
        Format::Text => output::line(&folder.display().to_string()),
    }
    global.say(&format!(
        "made a plugin in {}; build and try it:\n  cd {}\n  scutwork plugin build\n  scutwork run ./{name}.wasm @sample.txt",
        args.lang.title(),
        folder.display(),
    ));
    Ok(Exit::Done)
}

/// Nothing that lies there is ever overwritten.
fn refuse_what_is_there(folder: &Path) -> Result<(), Stopped> {
    let taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        // A link to nowhere is there too.
        Err(_) => fs::symlink_metadata(folder).is_ok(),
    };
    if taken {
        return Err(Stopped::usage(format!(
            "{} is there already and not an empty folder; choose another name, or another place with --in DIR",
            folder.display()
        )));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}
