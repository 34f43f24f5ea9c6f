//! The import `control`: progress, and whether the run should end early.

use super::contract::scutwork::task::control::Host;
use super::guest::Guest;

impl Host for Guest {
    fn progress(&mut self, done: u32, total: u32, message: String) -> wasmtime::Result<()> {
        self.voice().progress(done, total, &message);
        Ok(())
    }

    fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.voice().is_cancelled())
    }
}
