//! AMQP's properties to a [`Message`] and back; what a copy keeps of the original, and what it must not.

mod burial;
mod reply;
mod signal;
mod values;
mod waiting;

use anyhow::Result;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

pub(super) use self::burial::{bury, cause};
pub(super) use self::reply::{read_reply, write_reply};
pub(super) use self::signal::{is_knock, is_ring, knock, ring};
use self::values::{long, millis, number, short, text, time};
pub(super) use self::waiting::{passed_on, put_off, waiting};
use super::repair::{SHED, SUBSTITUTE};
use crate::broker::{Message, Record, ReplyTo};

const PERSISTENT: u8 = 2;

const ATTEMPT: &str = "scutwork-attempt";
const PARKED_SINCE: &str = "scutwork-parked-since";
const ON_TRIAL: &str = "scutwork-on-trial";
const NOTIFY: &str = "scutwork-notify";

/// Reads a message as it was delivered, and says what the repair of its frames has replaced. A header's
/// value that is not UTF-8 is kept as well as can be.
pub(super) fn read(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let table = properties.headers().as_ref();
    let text_property = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let header = |name: &str| table.and_then(|table| table.inner().get(name));
    let flag = |name: &str| {
        header(name)
            .and_then(text)
            .is_some_and(|text| text == "true")
    };
    Message {
        plugin: text_property(properties.kind()).or_else(|| header("plugin").and_then(text)),
        id: text_property(properties.message_id()),
        content_type: text_property(properties.content_type()),
        headers: table
            .into_iter()
            .flatten()
            .filter(|(name, _)| !is_bookkeeping(name.as_str()))
            .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
            .collect(),
        body: Bytes::from(body),
        reply_to: properties.reply_to().as_ref().map(|address| ReplyTo {
            address: address.to_string(),
            correlation_id: text_property(properties.correlation_id()),
            notify: flag(NOTIFY),
        }),
        priority: *properties.priority(),
        record: Record {
            attempt: header(ATTEMPT)
                .and_then(number)
                .and_then(|attempt| u32::try_from(attempt).ok())
                .map_or(1, |attempt| attempt.max(1)),
            parked_since: header(PARKED_SINCE).and_then(number).map(time),
            on_trial: flag(ON_TRIAL),
        },
        unreadable: unreadable(properties),
    }
}

/// What could not be read of a message, of all that a task would be made of.
fn unreadable(properties: &BasicProperties) -> Option<String> {
    let texts = [
        ("type", properties.kind()),
        ("message_id", properties.message_id()),
        ("content_type", properties.content_type()),
        ("reply_to", properties.reply_to()),
        ("correlation_id", properties.correlation_id()),
    ];
    let is_substituted = |text: &str| text.contains(SUBSTITUTE);
    for (name, text) in texts {
        if text
            .as_ref()
            .is_some_and(|text| is_substituted(text.as_str()))
        {
            return Some(format!("property `{name}` is not UTF-8; send text"));
        }
    }
    let table = properties.headers().as_ref()?.inner();
    if table.contains_key(SHED) {
        return Some(
            "its headers are too many to be copied, and the largest were dropped; send data in the body".to_owned(),
        );
    }
    let name = table.keys().find(|name| is_substituted(name.as_str()))?;
    Some(format!(
        "the name of header {:?} is not UTF-8; send text",
        name.as_str()
    ))
}

/// How many times the broker saw this message's holder go. Quorum queues count; of others only the
/// last hand-over is known.
pub(super) fn crashes(properties: &BasicProperties, redelivered: bool) -> u32 {
    properties
        .headers()
        .as_ref()
        .and_then(|table| table.inner().get("x-delivery-count"))
        .and_then(number)
        .map_or(u32::from(redelivered), |count| {
            u32::try_from(count).unwrap_or(u32::MAX)
        })
}

/// The properties of a message that we are the first to publish.
///
/// # Errors
/// When a text is longer than AMQP's 255 bytes allow.
pub(super) fn write(message: &Message) -> Result<BasicProperties> {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(plugin) = &message.plugin {
        properties = properties.with_type(short("plugin name", plugin)?);
    }
    if let Some(id) = &message.id {
        properties = properties.with_message_id(short("task id", id)?);
    }
    if let Some(content_type) = &message.content_type {
        properties = properties.with_content_type(short("content type", content_type)?);
    }
    if let Some(priority) = message.priority {
        properties = properties.with_priority(priority);
    }
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(short("header name", name)?, long(value));
    }
    if let Some(reply_to) = &message.reply_to {
        properties = properties.with_reply_to(short("reply address", &reply_to.address)?);
        if let Some(id) = &reply_to.correlation_id {
            properties = properties.with_correlation_id(short("correlation id", id)?);
        }
        if reply_to.notify {
            headers.insert(NOTIFY.into(), AMQPValue::Boolean(true));
        }
    }
    if message.record != Record::default() {
        write_record(&mut headers, &message.record);
    }
    Ok(properties.with_headers(headers))
}

/// The properties of a copy of `message`, which came with `original`.
///
/// Dropped are `expiration`, which would end the copy in a delay queue, and `user_id`, which the broker
/// refuses from anybody but that user; also the broker's account of the original's own past.
pub(super) fn copy(
    original: &BasicProperties,
    message: &Message,
    record: &Record,
) -> Result<BasicProperties> {
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flatten() {
        if is_copied(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    write_record(&mut headers, record);
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    if let Some(id) = &message.id {
        properties = properties.with_message_id(short("task id", id)?);
    }
    if let Some(value) = original.kind() {
        properties = properties.with_type(value.clone());
    }
    if let Some(value) = original.content_type() {
        properties = properties.with_content_type(value.clone());
    }
    if let Some(value) = original.content_encoding() {
        properties = properties.with_content_encoding(value.clone());
    }
    if let Some(value) = original.priority() {
        properties = properties.with_priority(*value);
    }
    if let Some(value) = original.correlation_id() {
        properties = properties.with_correlation_id(value.clone());
    }
    if let Some(value) = original.reply_to() {
        properties = properties.with_reply_to(value.clone());
    }
    if let Some(value) = original.timestamp() {
        properties = properties.with_timestamp(*value);
    }
    if let Some(value) = original.app_id() {
        properties = properties.with_app_id(value.clone());
    }
    if let Some(value) = original.cluster_id() {
        properties = properties.with_cluster_id(value.clone());
    }
    Ok(properties)
}

/// The properties of a dead letter that takes the place of its original, as if that had never been
/// handed over.
pub(super) fn renew(original: &BasicProperties) -> Result<BasicProperties> {
    let message = read(original, Vec::new());
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flatten() {
        if !matches!(name.as_str(), "x-delivery-count" | "x-acquired-count") {
            headers.insert(name.clone(), value.clone());
        }
    }
    Ok(copy(original, &message, &message.record)?.with_headers(headers))
}

/// What a copy keeps of the original's headers. `CC` and `BCC` would send each copy to the further
/// queues of the producer's publish, which have it.
fn is_copied(name: &str) -> bool {
    matches!(name, NOTIFY | SHED) || !(is_bookkeeping(name) || matches!(name, "CC" | "BCC"))
}

/// What the broker and the host keep in headers for themselves.
fn is_bookkeeping(name: &str) -> bool {
    matches!(name, "x-death" | "x-delivery-count" | "x-acquired-count")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
        || name.starts_with("scutwork-")
}

fn write_record(headers: &mut FieldTable, record: &Record) {
    headers.insert(
        ATTEMPT.into(),
        AMQPValue::LongLongInt(record.attempt.into()),
    );
    if let Some(since) = record.parked_since {
        headers.insert(PARKED_SINCE.into(), AMQPValue::LongLongInt(millis(since)));
    }
    if record.on_trial {
        headers.insert(ON_TRIAL.into(), AMQPValue::Boolean(true));
    }
}
