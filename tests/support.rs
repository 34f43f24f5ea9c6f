//! What tests share: folders, nodes, built plugins, and waiting for events.

pub(crate) mod rabbitmq;
