//! How a plugin and its host talk while a task runs.

#[cfg(target_family = "wasm")]
use crate::bindings::scutwork::task::control;

/// Says how far the task is: `done` of `total` units of any kind, and what it is doing. It is for people
/// who watch.
pub fn progress(done: u32, total: u32, message: &str) {
    #[cfg(target_family = "wasm")]
    control::progress(done, total, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{done}/{total} {message}");
}

/// Whether the worker is stopping. A task that can stop half way asks now and then, and returns a retry:
/// no attempt is spent. Without a host it is never so.
pub fn is_cancelled() -> bool {
    #[cfg(target_family = "wasm")]
    return control::is_cancelled();
    #[cfg(not(target_family = "wasm"))]
    return false;
}
