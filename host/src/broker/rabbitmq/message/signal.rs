//! Messages that are no tasks, by which workers tell one another.

use lapin::BasicProperties;

const KNOCK: &str = "scutwork-knock";
const RING: &str = "scutwork-ring";

/// What finds out whether a queue is there; it expires in it at once.
pub(in crate::broker::rabbitmq) fn knock() -> BasicProperties {
    BasicProperties::default()
        .with_type(KNOCK.into())
        .with_expiration("0".into())
}

/// Whether this is a [`knock`] that has not expired yet.
pub(in crate::broker::rabbitmq) fn is_knock(properties: &BasicProperties) -> bool {
    properties
        .kind()
        .as_ref()
        .is_some_and(|kind| kind.as_str() == KNOCK)
}

/// What tells whoever moves delays that there may be another delay queue.
pub(in crate::broker::rabbitmq) fn ring() -> BasicProperties {
    BasicProperties::default().with_type(RING.into())
}

/// Whether this is a [`ring`].
pub(in crate::broker::rabbitmq) fn is_ring(properties: &BasicProperties) -> bool {
    properties
        .kind()
        .as_ref()
        .is_some_and(|kind| kind.as_str() == RING)
}
