//! The tests, in one binary: each goes through the door that users use. `tests/run` runs them all.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod broker_contract;
mod chaos;
mod command_line;
mod flow;
mod plugin_directory;
mod rabbitmq;
mod sandbox;
mod sqlite;
mod support;
mod tidy;
mod tutorial;
