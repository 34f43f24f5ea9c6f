//! How a dead letter is shown, as JSON and as text.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::output::{bytes_for_json, one_line};
use crate::broker::Buried;

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "-";

/// Why letters died that carry no word of it.
const FOREIGN: &str = "not from scutwork";

/// The plugin that a letter was for.
pub(super) fn plugin(letter: &Buried) -> Option<&str> {
    let ran = letter
        .cause
        .as_ref()
        .and_then(|cause| cause.plugin.as_deref());
    ran.or(letter.message.plugin.as_deref())
}

/// The kind of failure.
pub(super) fn reason(letter: &Buried) -> &str {
    letter.cause.as_ref().map_or(FOREIGN, |cause| &cause.reason)
}

/// The plugin's own word for the failure.
pub(super) fn code(letter: &Buried) -> Option<&str> {
    letter.cause.as_ref()?.code.as_deref()
}

/// What happened, for a person; empty where nothing is known.
pub(super) fn error(letter: &Buried) -> &str {
    letter.cause.as_ref().map_or("", |cause| &cause.error)
}

/// When it died.
pub(super) fn at(letter: &Buried) -> Option<SystemTime> {
    letter.cause.as_ref().map(|cause| cause.at)
}

/// A time as RFC 3339 has it, in UTC. None too for one with no four-digit year, which somebody made up.
pub(super) fn show_time(time: Option<SystemTime>) -> Option<String> {
    use std::fmt::Write as _;
    let mut shown = String::new();
    write!(shown, "{}", humantime::format_rfc3339_millis(time?)).ok()?;
    Some(shown)
}

/// Everything but the payload, of which the size is told.
pub(super) fn as_json(letter: &Buried) -> Value {
    let Buried { message, cause, .. } = letter;
    let headers: serde_json::Map<_, _> = message
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    json!({
        "id": message.id,
        "plugin": plugin(letter),
        "reason": cause.as_ref().map(|cause| &cause.reason),
        "code": code(letter),
        "error": cause.as_ref().map(|cause| &cause.error),
        "attempts": cause.as_ref().map(|cause| cause.attempts),
        "digest": cause.as_ref().and_then(|cause| cause.digest.as_ref()),
        "worker": cause.as_ref().map(|cause| &cause.worker),
        "at": show_time(at(letter)),
        "content_type": message.content_type,
        "headers": headers,
        "priority": message.priority,
        "reply_to": message.reply_to.as_ref().map(|reply_to| &reply_to.address),
        "size": message.body.len(),
    })
}

/// [`as_json`] with the payload, as text or in base64.
pub(super) fn as_json_with_payload(letter: &Buried) -> Value {
    let mut json = as_json(letter);
    json["payload"] = bytes_for_json(&letter.message.body);
    json
}

/// Everything but the payload, a line each.
pub(super) fn as_lines(letter: &Buried) -> Vec<(&'static str, String)> {
    let message = &letter.message;
    let line = |text: &str| one_line(text, 2000);
    let or_unknown = |text: Option<&str>| line(text.unwrap_or(UNKNOWN));
    let mut lines = vec![
        ("id", or_unknown(message.id.as_deref())),
        ("plugin", or_unknown(plugin(letter))),
        ("reason", line(reason(letter))),
    ];
    if let Some(cause) = &letter.cause {
        if let Some(code) = &cause.code {
            lines.push(("code", line(code)));
        }
        lines.extend([
            ("error", line(&cause.error)),
            ("attempts", cause.attempts.to_string()),
            ("digest", or_unknown(cause.digest.as_deref())),
            ("worker", line(&cause.worker)),
            ("died", show_time(Some(cause.at)).unwrap_or_default()),
        ]);
    }
    if let Some(content_type) = &message.content_type {
        lines.push(("content type", line(content_type)));
    }
    if let Some(reply_to) = &message.reply_to {
        lines.push(("reply to", line(&reply_to.address)));
    }
    for (name, value) in &message.headers {
        lines.push(("header", line(&format!("{name}={value}"))));
    }
    lines.push(("payload", format!("{} bytes", message.body.len())));
    lines
}
