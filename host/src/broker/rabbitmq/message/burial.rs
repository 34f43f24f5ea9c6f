//! Why a dead letter died, as headers of its message.

use anyhow::Result;
use lapin::BasicProperties;
use lapin::types::AMQPValue;

use super::copy;
use super::values::{clip, long, millis, number, text, time};
use crate::broker::Message;
use crate::name::QueueName;
use crate::settlement::DeadLetter;

/// The most of a dead letter's error text that travels with it, in bytes.
const ERROR_BYTES: usize = 4096;

/// The properties of a dead letter: the original message's, and why it died.
pub(in crate::broker::rabbitmq) fn bury(
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
pub(in crate::broker::rabbitmq) fn cause(properties: &BasicProperties) -> Option<DeadLetter> {
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
