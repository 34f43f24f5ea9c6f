//! Writes scutwork plugins in Rust: a plugin is a function from a [`Task`] to an [`Output`] or a
//! [`Failure`].
//!
//! ```
//! use scutwork_plugin::{Failure, OrFail, Output, Task, plugin};
//!
//! plugin!(shout);
//!
//! fn shout(task: Task) -> Result<Output, Failure> {
//!     let text = task.text()?;
//!     let times: usize = task.header("times").unwrap_or("1").parse().or_reject("bad-times")?;
//!     Ok(Output::text(text.to_uppercase().repeat(times)))
//! }
//! # assert_eq!(shout(Task::new("hey")), Ok(Output::text("HEY")));
//! ```
//!
//! No error becomes a failure by itself: whether a task may work later or never will is for the plugin
//! to say, with [`OrFail::or_retry`] or [`OrFail::or_reject`]. Off WebAssembly, as in `cargo test`, the
//! host's functions do nothing but print, so a handler is tested as any function is.

pub mod control;
mod failure;
pub mod log;
mod output;
mod task;

pub use bindings::scutwork::task::task_types::{Failure, Output, RejectReason, RetryReason, Task};
pub use failure::OrFail;

/// The contract as Rust. What a plugin needs of it is exported above.
#[doc(hidden)]
#[allow(missing_docs, unsafe_code, reason = "generated from wit/")]
pub mod bindings;

/// Makes a function the plugin's handler: `plugin!(handle);`, once in a crate.
#[macro_export]
macro_rules! plugin {
    ($handle:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Plugin;

            impl $crate::bindings::exports::scutwork::task::handler::Guest for Plugin {
                fn handle(
                    task: $crate::Task,
                ) -> ::core::result::Result<$crate::Output, $crate::Failure> {
                    $handle(task)
                }
            }

    $crate::bindings::export!(Plugin with_types_in $crate::bindings);
        };

        // Without a host nobody calls it; it is checked all the same.
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::Task) -> ::core::result::Result<$crate::Output, $crate::Failure> =
            $handle;
    };
}
