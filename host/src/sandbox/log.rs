//! The import `log`: a guest's lines.

use super::contract::scutwork::task::log::{Host, Level as Said};
use super::guest::Guest;
use crate::event::Level;

impl Host for Guest {
    fn write(
        &mut self,
        level: Said,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            Said::Trace => Level::Trace,
            Said::Debug => Level::Debug,
            Said::Info => Level::Info,
            Said::Warn => Level::Warn,
            Said::Error => Level::Error,
        };
        self.voice().line(level, &message, &fields);
        Ok(())
    }
}
