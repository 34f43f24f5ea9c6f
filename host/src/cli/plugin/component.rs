//! Makes a component of a core module: of one that exports the contract's handler as clang, Zig, TinyGo and
//! other toolchains leave it, which know nothing of components.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::plugin::anatomy::Anatomy;

/// The world that a plugin targets.
const WORLD: &str = "plugin";

/// The contract that this program speaks.
const CONTRACT: &str = include_str!("../../../../wit/task.wit");

/// The component of a core module that was built in a plugin's folder, whose `wit/` is what it was built
/// against.
///
/// # Errors
/// When the module is not what the contract asks for, with what to do.
pub(super) fn of_folder(module: &[u8], folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join("wit/task.wit");
    let contract = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}, the contract; `scutwork plugin new` writes one",
            path.display()
        )
    })?;
    of(module, &contract)
}

/// The component of a core module that came from anywhere.
///
/// # Errors
/// As [`of_folder`].
pub(super) fn of_module(module: &[u8]) -> Result<Vec<u8>> {
    of(module, CONTRACT)
}

fn of(module: &[u8], contract: &str) -> Result<Vec<u8>> {
    let anatomy = Anatomy::of(module).map_err(|error| anyhow!("it is no WebAssembly: {error}"))?;
    if anatomy.is_component {
        bail!("it is a component already; `scutwork plugin check` says whether it would serve");
    }
    if !anatomy.is_unwrapped() {
        bail!(
            "it exports no `scutwork:task/handler@0.1.0#handle`; a plugin is built against the world \
             `{WORLD}` of wit/task.wit, and a program with a `main` is one as it is"
        );
    }
    let mut module = module.to_vec();
    if !tells_its_types(&module)? {
        let mut resolve = Resolve::default();
        let package = resolve
            .push_source("wit/task.wit", contract)
            .context("cannot read the contract")?;
        let world = resolve
            .select_world(&[package], Some(WORLD))
            .context("the contract has no world for plugins")?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| {
            encoder.adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|mut encoder| encoder.encode());
    encoded.context(
        "no component can be made of it; its imports and exports must be those of wit/task.wit",
    )
}

/// Whether its toolchain has written into it what its imports and exports mean, as wit-bindgen does.
fn tells_its_types(module: &[u8]) -> Result<bool> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload?
            && section.name().starts_with("component-type")
        {
            return Ok(true);
        }
    }
    Ok(false)
}
