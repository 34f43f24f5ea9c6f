//! `scutwork plugin`: what an author or operator does with plugins. One file a command.

mod build;
mod check;
mod component;
mod inspect;
mod language;
mod list;
mod new;
mod project;
mod report;
mod template;
mod toolchain;
mod watch;

use clap::Subcommand;

use super::{Exit, Global, Stopped};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Make a folder with a plugin that builds as it stands
    New(new::NewArgs),
    /// Build the plugin in a folder, check it, and put it where it is wanted
    Build(build::BuildArgs),
    /// Say whether a file would serve, and what to do if not; exits 1 if it would not
    Check(check::CheckArgs),
    /// Show all that a file tells of itself, and what its manifest makes of it
    Inspect(inspect::InspectArgs),
    /// Show which plugins a worker would serve, and which files it would refuse; exits 1 if any
    List,
}

/// Runs the command.
pub(super) async fn plugin(
    global: &Global,
    config: Config,
    command: PluginCommand,
) -> Result<Exit, Stopped> {
    match command {
        PluginCommand::New(args) => new::new(global, &args),
        PluginCommand::Build(args) => build::build(global, config, args).await,
        PluginCommand::Check(args) => check::check(global, &config, &args),
        PluginCommand::Inspect(args) => inspect::inspect(global, &config, &args),
        PluginCommand::List => list::list(global, &config),
    }
}
