//! RabbitMQ's own tutorial programs, served unchanged.
