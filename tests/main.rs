//! The tests, in one binary: each goes through the door that users use. `tests/run` runs them all.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that panics says why, and figures are printed"
)]

mod authors;
mod bindings;
mod broker_contract;
mod capabilities;
mod chaos;
mod command_line;
mod commands;
mod compiling;
mod dead_letters;
mod decoding;
mod doctor;
mod flow;
mod hostile;
mod hostile_messages;
mod plugin_directory;
mod poison;
mod prefetch;
mod programs;
mod queue;
mod rabbitmq;
mod redelivery;
mod resolving;
mod sandbox;
mod smith;
mod sqlite;
mod support;
mod tidy;
mod trust;
mod tutorial;
mod working;
