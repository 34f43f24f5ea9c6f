//! [`Grants`]: what one plugin is called with and may reach beside its task, the same for every run.

use super::command::CommandSettings;

/// What a plugin may reach. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// How it is called if it is a WASI command.
    pub command: CommandSettings,
}
