//! Sandbox: runs a plugin on a task, in a fresh instance that ends with the run.

pub mod limits;
