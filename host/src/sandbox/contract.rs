//! The contract with plugins as Rust: bindings made from `wit/`, and the names in it that errors say.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the generated code is documented in wit/task.wit"
)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: false },
    exports: { default: async },
    imports: { default: trappable },
});

/// The version of the contract that this host speaks.
pub(super) const VERSION: &str = "0.1.0";

/// The interface that every plugin exports, without its version.
pub(super) const HANDLER: &str = "scutwork:task/handler";
