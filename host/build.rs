//! Compiles every plugin of the workspace to WebAssembly and puts it where the crate includes it from:
//! `dots` serves whenever no directory says otherwise, and the rest is for the demo and the tests.

#![allow(
    clippy::print_stdout,
    reason = "it is how a build script talks to cargo"
)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "plugin";

/// What each begins with, so that payloads of ordinary sizes need no growth: that changes the protection of
/// pages, there and back, which costs more than a short run where several threads do it at once. Memory
/// that is not touched is none.
const MEMORY: &str = "target.wasm32-wasip2.rustflags=['-Clink-arg=--initial-heap=1048576']";

/// What the outer build sets for itself and the plugins' build must not see: flags for another
/// target, wrappers such as clippy's, another place for the results.
const NOT_INHERITED: [&str; 11] = [
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")?)
        .parent()
        .ok_or("the host crate is not in a workspace")?
        .to_owned();
    let plugins = plugins(&workspace.join("plugins"))?;
    tell_inputs(&workspace, &plugins);
    require_target(&workspace)?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let results = results_directory(&out)?;
    compile(&workspace, &plugins, &results)?;
    for plugin in &plugins {
        let file = format!("{plugin}.wasm");
        let made = results.join(TARGET).join(PROFILE).join(&file);
        fs::copy(&made, out.join(&file))
            .map_err(|error| format!("cannot copy {}: {error}", made.display()))?;
    }
    Ok(())
}

/// What is compiled here, and not all that lies in `plugins/`: others build there too. A plugin that is
/// added changes the workspace's lock.
fn tell_inputs(workspace: &Path, plugins: &[String]) {
    let mut inputs = vec!["wit".into(), "Cargo.toml".into(), "Cargo.lock".into()];
    for package in plugins.iter().map(String::as_str).chain(["sdk"]) {
        let package = Path::new("plugins").join(package);
        inputs.extend(["Cargo.toml", "src", "wit"].map(|input| package.join(input)));
    }
    for input in inputs.iter().map(|input| workspace.join(input)) {
        // What is not there would have this run every time.
        if input.exists() {
            println!("cargo::rerun-if-changed={}", input.display());
        }
    }
}

/// The plugins' names, which are their directories'.
fn plugins(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let manifest = entry.path().join("Cargo.toml");
        // One with a lock of its own is built by itself, as its author would.
        if entry.path().join("Cargo.lock").exists() {
            continue;
        }
        // What is no cdylib, as the library that plugins are written with, is no plugin.
        if manifest.is_file() && fs::read_to_string(manifest)?.contains("\"cdylib\"") {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Makes sure that the toolchain can compile for the target, and installs what is missing if rustup
/// is there to do it.
fn require_target(workspace: &Path) -> Result<(), Box<dyn Error>> {
    if has_target()? {
        return Ok(());
    }
    let installed = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(workspace)
        .status();
    if installed.is_ok_and(|status| status.success()) && has_target()? {
        return Ok(());
    }
    Err(format!("the Rust target {TARGET} is missing; run `rustup target add {TARGET}`").into())
}

fn has_target() -> Result<bool, Box<dyn Error>> {
    let printed = Command::new(variable("RUSTC")?)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()?;
    let libraries = String::from_utf8(printed.stdout)?;
    Ok(printed.status.success() && Path::new(libraries.trim()).is_dir())
}

/// A directory in the outer build's own that all its profiles share. The outer build has locked its
/// profile's directory, so the plugins need another.
fn results_directory(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let outer = out
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        // target/PROFILE/build/PACKAGE/out
        .or_else(|| out.ancestors().nth(4))
        .ok_or("OUT_DIR is not in a target directory")?;
    Ok(outer.join("plugins"))
}

fn compile(workspace: &Path, plugins: &[String], results: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--locked",
            "--profile",
            PROFILE,
            "--target",
            TARGET,
        ])
        .args(["--config", MEMORY])
        .arg("--target-dir")
        .arg(results);
    for plugin in plugins {
        cargo.args(["--package", plugin]);
    }
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    let done = cargo.output()?;
    if done.status.success() {
        return Ok(());
    }
    // Only lines that begin with `cargo::error=` are shown without being asked for.
    for line in String::from_utf8_lossy(&done.stderr).lines() {
        println!("cargo::error={line}");
    }
    Err("the plugins do not compile; see above".into())
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
