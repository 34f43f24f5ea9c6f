//! `scutwork plugin check`: whether a file would serve, and what to do if not.

use std::path::PathBuf;

use clap::Args;

use super::super::{Exit, Global, Stopped};
use super::report::Report;
use crate::config::Config;

#[derive(Debug, Args)]
pub(in super::super) struct CheckArgs {
    /// The .wasm file; its manifest lies beside it
    file: PathBuf,
}

/// Runs the command.
pub(super) fn check(global: &Global, config: &Config, args: &CheckArgs) -> Result<Exit, Stopped> {
    let report = Report::of(config, &args.file)?;
    report.show(global);
    Ok(if report.is_bad() {
        Exit::No
    } else {
        Exit::Done
    })
}
