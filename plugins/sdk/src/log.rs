//! Lines for the host's log. Each carries the task's id and the plugin's name by itself.

use std::fmt::Display;

#[cfg(target_family = "wasm")]
use crate::bindings::scutwork::task::log;

/// Names and values that tools can search by.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

macro_rules! levels {
    ($($name:ident $level:ident $what:literal,)*) => {$(
        #[doc = $what]
        pub fn $name(message: &str, fields: Fields<'_>) {
            #[cfg(target_family = "wasm")]
            {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.to_string()))
                    .collect();
                log::write(log::Level::$level, message, &fields);
            }
            #[cfg(not(target_family = "wasm"))]
            print(stringify!($name), message, fields);
        }
    )*};
}

levels! {
    trace Trace "What only its author wants to know.",
    debug Debug "What helps when something is wrong.",
    info Info "What happened.",
    warn Warn "What went wrong and was dealt with.",
    error Error "What went wrong.",
}

#[cfg(not(target_family = "wasm"))]
fn print(level: &str, message: &str, fields: Fields<'_>) {
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    eprintln!("{level}: {message}{fields}");
}
