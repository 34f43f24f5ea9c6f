//! `scutwork plugin build`: the plugin in a folder, built, checked and put where it is wanted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::super::{Exit, Format, Global, Stopped, output};
use super::project::Project;
use super::report::Report;
use super::{component, toolchain, watch};
use crate::config::Config;
use crate::units::{show_duration, show_size};

/// A file of so many bytes takes seconds, and somebody may be waiting.
const LONG_TO_COMPILE: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(in super::super) struct BuildArgs {
    /// The plugin's folder, or a core module that another tool has built, to make a component of
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to put NAME.wasm, for example a plugin directory that is served [default: where the source is]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build again at every change, and run it on a payload (a text, @FILE) if there is one
    #[arg(long, value_name = "PAYLOAD", num_args = 0..=1)]
    #[expect(
        clippy::option_option,
        reason = "not given, given, given with a payload"
    )]
    watch: Option<Option<String>>,
}

/// Runs the command.
pub(super) async fn build(
    global: &Global,
    config: Config,
    args: BuildArgs,
) -> Result<Exit, Stopped> {
    if args.dir.is_file() {
        return module(global, &config, &args);
    }
    let project = Project::at(&args.dir)?;
    let out = args.out.unwrap_or_else(|| project.folder.clone());
    require_folder(&out)?;
    match args.watch {
        None => once(global, &config, &project, &out),
        Some(payload) => watch::watch(global, &config, &project, &out, payload.as_deref()).await,
    }
}

fn require_folder(out: &Path) -> Result<(), Stopped> {
    if out.is_dir() {
        return Ok(());
    }
    Err(Stopped::not_found(format!(
        "{} is no folder; make it with mkdir -p, or name another with --out",
        out.display()
    )))
}

/// Makes a component of a core module, and puts it elsewhere: the module stays what it is.
fn module(global: &Global, config: &Config, args: &BuildArgs) -> Result<Exit, Stopped> {
    let file = args.dir.display();
    let (Some(out), None) = (&args.out, &args.watch) else {
        return Err(Stopped::usage(format!(
            "{file} is a file; say with --out DIR where its component goes, and --watch is for folders"
        )));
    };
    require_folder(out)?;
    let module = fs::read(&args.dir).with_context(|| format!("cannot read {file}"))?;
    let wasm = component::of_module(&module)
        .map_err(|error| Stopped::new(Exit::No, error.context(format!("{file}"))))?;
    let name = args.dir.file_name().unwrap_or_default();
    let put = out.join(name);
    if put.exists() && fs::canonicalize(&put).ok() == fs::canonicalize(&args.dir).ok() {
        return Err(Stopped::usage(format!(
            "{file} would be written over; name another folder with --out"
        )));
    }
    let scratch = tempfile::tempdir().context("cannot make a folder")?;
    let made = scratch.path().join(name);
    fs::write(&made, &wasm).with_context(|| format!("cannot write {}", made.display()))?;
    let report = Report::of(config, &made)?;
    if report.is_bad() {
        output::complain(&format!("the component of {file} would not serve"));
        report.show(global);
        return Ok(Exit::No);
    }
    rename_into(&put, &wasm).with_context(|| format!("cannot write {}", put.display()))?;
    tell(global, &report, &put);
    Ok(Exit::Done)
}

/// What is said of a file that was built and put there.
fn tell(global: &Global, report: &Report, put: &Path) {
    match global.output {
        Format::Json => output::json(&json!({ "file": put, "check": report.as_json() })),
        Format::Text => output::line(&put.display().to_string()),
    }
}

/// Builds once.
pub(super) fn once(
    global: &Global,
    config: &Config,
    project: &Project,
    out: &Path,
) -> Result<Exit, Stopped> {
    let began = Instant::now();
    global.say(&format!(
        "building {} ({})",
        project.name,
        project.language.title()
    ));
    let wasm = toolchain::compile(project)?;
    if wasm.len() as u64 >= LONG_TO_COMPILE {
        global.say("compiling it to native code, once; it is kept for the next time");
    }
    let report = check(config, project, &wasm)?;
    if report.is_bad() {
        output::complain(&format!("{} was built and would not serve", project.name));
        report.show(global);
        return Ok(Exit::No);
    }
    let put = deliver(project, &wasm, out)
        .with_context(|| format!("cannot put {}.wasm into {}", project.name, out.display()))?;
    tell(global, &report, &put);
    global.say(&format!(
        "built in {}: {}, compiles in {}",
        show_duration(began.elapsed()),
        show_size(wasm.len() as u64),
        report.compiled_in().map_or_else(String::new, show_duration),
    ));
    Ok(Exit::Done)
}

/// Checks what was built as a worker would, before anybody serves it.
fn check(config: &Config, project: &Project, wasm: &[u8]) -> Result<Report, Stopped> {
    let scratch = project
        .scratch()
        .context("cannot make a folder")?
        .join("check");
    fs::create_dir_all(&scratch).context("cannot make a folder")?;
    let file = scratch.join(format!("{}.wasm", project.name));
    fs::write(&file, wasm).with_context(|| format!("cannot write {}", file.display()))?;
    let manifest = file.with_extension("toml");
    let _ = fs::remove_file(&manifest);
    if project.manifest().is_file() {
        fs::copy(project.manifest(), &manifest)
            .with_context(|| format!("cannot write {}", manifest.display()))?;
    }
    Report::of(config, &file)
}

/// Puts the file there whole or not at all: a worker may be watching. The manifest goes first, and never
/// over one that is there, which is the operator's.
fn deliver(project: &Project, wasm: &[u8], out: &Path) -> std::io::Result<PathBuf> {
    let manifest = out.join(format!("{}.toml", project.name));
    if project.manifest().is_file() && !manifest.exists() {
        rename_into(&manifest, &fs::read(project.manifest())?)?;
    }
    let file = out.join(format!("{}.wasm", project.name));
    rename_into(&file, wasm)?;
    Ok(file)
}

fn rename_into(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().display();
    let aside = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = fs::write(&aside, content).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}
