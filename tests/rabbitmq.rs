//! What only RabbitMQ can do or get wrong.
