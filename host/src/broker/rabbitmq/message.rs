//! AMQP's properties to a [`Message`] and back; what a copy keeps of the original, and what it must not.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::delay::Stay;
use super::repair::{SHED, SUBSTITUTE};
use crate::broker::{Message, Record, ReplyTo};
use crate::name::QueueName;
use crate::settlement::{DeadLetter, Reply, ReplyKind};

const PERSISTENT: u8 = 2;

const ATTEMPT: &str = "scutwork-attempt";
const PARKED_SINCE: &str = "scutwork-parked-since";
const ON_TRIAL: &str = "scutwork-on-trial";
const NOTIFY: &str = "scutwork-notify";
const OUTCOME: &str = "scutwork-outcome";
const TASK: &str = "scutwork-task";
const LEAVES: &str = "scutwork-leaves";
const DUE: &str = "scutwork-due";
const KNOCK: &str = "scutwork-knock";
const RING: &str = "scutwork-ring";

/// The most of a dead letter's error text that travels with it, in bytes.
const ERROR_BYTES: usize = 4096;

/// The times of a message in a delay queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// When it leaves this one.
    pub(super) leaves: SystemTime,
    /// When it goes to the task queue.
    pub(super) due: SystemTime,
}

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

/// What finds out whether a queue is there; it expires in it at once.
pub(super) fn knock() -> BasicProperties {
    BasicProperties::default()
        .with_type(KNOCK.into())
        .with_expiration("0".into())
}

/// Whether this is a [`knock`] that has not expired yet.
pub(super) fn is_knock(properties: &BasicProperties) -> bool {
    properties
        .kind()
        .as_ref()
        .is_some_and(|kind| kind.as_str() == KNOCK)
}

/// What tells whoever moves delays that there may be another delay queue.
pub(super) fn ring() -> BasicProperties {
    BasicProperties::default().with_type(RING.into())
}

/// Whether this is a [`ring`].
pub(super) fn is_ring(properties: &BasicProperties) -> bool {
    properties
        .kind()
        .as_ref()
        .is_some_and(|kind| kind.as_str() == RING)
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

/// The properties of a dead letter: the original message's, and why it died.
pub(super) fn bury(
    original: &BasicProperties,
    message: &Message,
    letter: &DeadLetter,
    queue: &QueueName,
) -> Result<BasicProperties> {
    let properties = copy(original, message, &message.record)?;
    let mut headers = properties.headers().clone().unwrap_or_default();
    let mut note = |name: &str, value: AMQPValue| {
        headers.insert(format!("scutwork-dead-{name}").into(), value);
    };
    note("reason", long(&letter.reason));
    note("error", long(clip(&letter.error, ERROR_BYTES)));
    note("attempts", AMQPValue::LongLongInt(letter.attempts.into()));
    note("worker", long(&letter.worker));
    note("at", AMQPValue::LongLongInt(millis(letter.at)));
    note("queue", long(queue.as_str()));
    if let Some(code) = &letter.code {
        note("code", long(clip(code, ERROR_BYTES)));
    }
    if let Some(plugin) = &letter.plugin {
        note("plugin", long(clip(plugin, ERROR_BYTES)));
    }
    if let Some(digest) = &letter.digest {
        note("digest", long(digest));
    }
    Ok(properties.with_headers(headers))
}

/// Reads why a dead letter died. None: somebody else put it there and left no word.
pub(super) fn cause(properties: &BasicProperties) -> Option<DeadLetter> {
    let table = properties.headers().as_ref()?.inner();
    let note = |name: &str| table.get(format!("scutwork-dead-{name}").as_str());
    let said = |name: &str| note(name).and_then(text);
    let Some(reason) = said("reason") else {
        return broker_cause(table.get("x-death")?);
    };
    Some(DeadLetter {
        reason,
        code: said("code"),
        error: said("error").unwrap_or_default(),
        attempts: note("attempts")
            .and_then(number)
            .and_then(|attempts| u32::try_from(attempts).ok())
            .unwrap_or_default(),
        plugin: said("plugin"),
        digest: said("digest"),
        worker: said("worker").unwrap_or_default(),
        at: time(note("at").and_then(number).unwrap_or_default()),
    })
}

/// What the broker noted when a queue's own policy dead-lettered a message. Its latest death comes first.
fn broker_cause(deaths: &AMQPValue) -> Option<DeadLetter> {
    let AMQPValue::FieldArray(deaths) = deaths else {
        return None;
    };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
        return None;
    };
    let said = |name: &str| death.inner().get(name).and_then(text).unwrap_or_default();
    let number_of = |name: &str| death.inner().get(name).and_then(number).unwrap_or_default();
    let seconds = match death.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).unwrap_or_default(),
        Some(_) | None => 0,
    };
    Some(DeadLetter {
        reason: said("reason"),
        code: None,
        error: format!("dead-lettered by the policy of queue `{}`", said("queue")),
        attempts: u32::try_from(number_of("count")).unwrap_or_default(),
        plugin: None,
        digest: None,
        worker: "the broker".to_owned(),
        at: time(seconds.saturating_mul(1000)),
    })
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

/// The properties with which a message waits in a delay queue.
pub(super) fn put_off(properties: BasicProperties, stay: Stay) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(LEAVES.into(), AMQPValue::LongLongInt(millis(stay.leaves)));
    headers.insert(DUE.into(), AMQPValue::LongLongInt(millis(stay.due)));
    properties.with_headers(headers)
}

/// What a message in a delay queue says of its times. None: somebody else put it there.
pub(super) fn waiting(properties: &BasicProperties) -> Option<Waiting> {
    let table = properties.headers().as_ref()?.inner();
    Some(Waiting {
        leaves: table.get(LEAVES).and_then(number).map(time)?,
        due: table.get(DUE).and_then(number).map(time)?,
    })
}

/// The properties with which what waited goes to the next delay queue, or to the task queue.
pub(super) fn passed_on(original: &BasicProperties, stay: Option<Stay>) -> Result<BasicProperties> {
    let renewed = renew(original)?;
    let mut headers = FieldTable::default();
    for (name, value) in renewed.headers().iter().flatten() {
        if !matches!(name.as_str(), LEAVES | DUE) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let properties = renewed.with_headers(headers);
    Ok(match stay {
        Some(stay) => put_off(properties, stay),
        None => properties,
    })
}

/// The properties of a reply.
pub(super) fn write_reply(reply: &Reply, correlation_id: Option<&str>) -> Result<BasicProperties> {
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
pub(super) fn read_reply(properties: &BasicProperties, body: Vec<u8>) -> (Option<String>, Reply) {
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

/// A string, number or boolean as text; nothing else becomes a header of a task.
fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::ByteArray(bytes) => Some(String::from_utf8_lossy(bytes.as_slice()).into_owned()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::Float(value) => Some(value.to_string()),
        AMQPValue::Double(value) => Some(value.to_string()),
        AMQPValue::Timestamp(value) => Some(value.to_string()),
        AMQPValue::ShortShortInt(_)
        | AMQPValue::ShortShortUInt(_)
        | AMQPValue::ShortInt(_)
        | AMQPValue::ShortUInt(_)
        | AMQPValue::LongInt(_)
        | AMQPValue::LongUInt(_)
        | AMQPValue::LongLongInt(_) => number(value).map(|number| number.to_string()),
        AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => None,
    }
}

/// A whole number, whichever width the producer's client gave it, or written as text.
fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(value) => Some((*value).into()),
        AMQPValue::ShortShortUInt(value) => Some((*value).into()),
        AMQPValue::ShortInt(value) => Some((*value).into()),
        AMQPValue::ShortUInt(value) => Some((*value).into()),
        AMQPValue::LongInt(value) => Some((*value).into()),
        AMQPValue::LongUInt(value) => Some((*value).into()),
        AMQPValue::LongLongInt(value) => Some(*value),
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?.parse().ok(),
        _ => None,
    }
}

fn short(what: &str, text: &str) -> Result<ShortString> {
    ShortString::try_new(text)
        .with_context(|| format!("the {what} has {} bytes; AMQP carries 255", text.len()))
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// The reverse of [`millis`].
fn time(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn clip(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
