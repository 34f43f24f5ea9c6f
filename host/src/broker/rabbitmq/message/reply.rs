//! Replies as messages.

use anyhow::Result;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::values::{long, number, short, text};
use super::{ATTEMPT, PERSISTENT};
use crate::settlement::{Reply, ReplyKind};

const OUTCOME: &str = "scutwork-outcome";
const TASK: &str = "scutwork-task";

/// The properties of a reply.
pub(in crate::broker::rabbitmq) fn write_reply(
    reply: &Reply,
    correlation_id: Option<&str>,
) -> Result<BasicProperties> {
    let mut headers = FieldTable::default();
    headers.insert(OUTCOME.into(), long(reply.kind.as_str()));
    headers.insert(TASK.into(), long(&reply.task));
    headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(reply.attempt.into()));
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(crate::task::new_id().into())
        .with_headers(headers);
    // A content type that AMQP cannot carry came from a plugin, and is not worth the output.
    if let Some(content_type) = &reply.content_type
        && let Ok(content_type) = ShortString::try_new(content_type.as_str())
    {
        properties = properties.with_content_type(content_type);
    }
    if let Some(id) = correlation_id {
        properties = properties.with_correlation_id(short("correlation id", id)?);
    }
    Ok(properties)
}

/// Reads a reply: the requester's correlation id, and what it is told.
pub(in crate::broker::rabbitmq) fn read_reply(
    properties: &BasicProperties,
    body: Vec<u8>,
) -> (Option<String>, Reply) {
    let header = |name: &str| {
        let table = properties.headers().as_ref()?;
        table.inner().get(name)
    };
    let reply = Reply {
        kind: ReplyKind::from_word(&header(OUTCOME).and_then(text).unwrap_or_default()),
        task: header(TASK).and_then(text).unwrap_or_default(),
        attempt: header(ATTEMPT)
            .and_then(number)
            .and_then(|attempt| u32::try_from(attempt).ok())
            .unwrap_or(1),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        body: Bytes::from(body),
    };
    let correlation_id = properties
        .correlation_id()
        .as_ref()
        .map(ToString::to_string);
    (correlation_id, reply)
}
