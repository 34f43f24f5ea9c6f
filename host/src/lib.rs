//! scutwork runs background jobs as sandboxed WebAssembly plugins, on RabbitMQ or an embedded queue.
//!
//! This page is the map. A message becomes a settled task along one line:
//!
//! ```text
//! Broker -- Delivery --> Task::decode --> Registry --> Sandbox::run --> Outcome --> RetryPolicy::settle --> Settlement --> Broker
//! ```
//!
//! - [`name`]: the names that cross a boundary, checked once.
//! - [`units`]: sizes and durations as people write them.
//! - [`strict_toml`]: files read with no key left unread.
//! - `semaphore`: permits that go in turn, and cost no lock where nobody waits.
//! - [`broker`]: the contract with brokers, and the brokers themselves behind it.
//! - [`config`]: flags, environment and file made into one checked whole.
//! - [`cli`]: the commands, one a file.
//! - [`task`]: a message decoded and checked.
//! - [`plugin`]: a plugin with its manifest, and the registry of those that serve.
//! - [`sandbox`]: one fresh, limited instance for every run.
//! - [`outcome`]: what a run meant.
//! - [`settlement`]: what the broker is told; the one place that decides between retry and dead letter.
//! - [`worker`]: slots, the line above, and draining.
//! - [`event`]: what observers see.
//!
//! What holds between them, and a test in `tests/tidy.rs` keeps: `broker` never reaches `sandbox` or
//! `plugin`, nor they it; lapin is named only in `broker::rabbitmq`, the database only in
//! `broker::sqlite`, wasmtime only under `plugin` and `sandbox`, and the one `unsafe` of the library is in
//! `sandbox::load`, where native code of our own compiler is mapped. The program has another, which sets
//! an option of its allocator.
//!
//! The functions of WASI that a guest may import are linked in a library of their own, `host/wasi`, which need not be
//! compiled when this one changes.

pub mod broker;
pub mod cli;
pub mod config;
pub mod event;
pub mod name;
pub mod outcome;
pub mod plugin;
pub mod sandbox;
mod semaphore;
pub mod settlement;
pub mod strict_toml;
pub mod task;
pub mod units;
pub mod worker;
