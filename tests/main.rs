//! The tests, in one binary: each goes through the door that users use. `tests/run` runs them all.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that panics says why, and figures are printed"
)]

mod authors;
mod broker_contract;
mod chaos;
mod command_line;
mod dead_letters;
mod doctor;
mod flow;
mod plugin_directory;
mod queue;
mod rabbitmq;
mod sandbox;
mod sqlite;
mod support;
mod tidy;
mod tutorial;
