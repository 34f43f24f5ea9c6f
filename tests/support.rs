//! What tests share: folders, nodes, built plugins, and waiting for events.

pub(crate) mod both_brokers;
pub(crate) mod network;
pub(crate) mod program;
pub(crate) mod rabbitmq;
pub(crate) mod rust_code;
pub(crate) mod shelf;
pub(crate) mod waiting;
pub(crate) mod wat;
pub(crate) mod worker;
