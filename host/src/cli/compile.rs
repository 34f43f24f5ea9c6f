//! `scutwork compile`, hidden: the child process in which a plugin is compiled. No person calls it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Cli, Command};
use crate::plugin::compiler::confined;

impl Cli {
    /// Does what must be done before there are threads; none: the command line asks for something
    /// else.
    pub fn run_alone(&self) -> Option<ExitCode> {
        matches!(self.command, Command::Compile).then(confined::serve)
    }
}

/// This program's own file.
pub(super) fn own_program() -> PathBuf {
    // On Linux it stays this very program when the file is replaced, as by an upgrade; another
    // version's code would be of no use.
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return running.to_owned();
    }
    // Where it cannot be told, starting it will say so.
    std::env::current_exe().unwrap_or_else(|_| running.to_owned())
}
