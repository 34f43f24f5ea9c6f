//! The names that cross a boundary, checked once: [`PluginName`] and [`QueueName`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A plugin's name: its file's name without `.wasm`, and what a message's `type` says.
///
/// 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit. So it can never leave the plugin
/// directory, hide as a dot file or hold a control character. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginName(Arc<str>);

/// A queue's name, as the broker has it.
///
/// 1 to 200 bytes without control characters and not starting with `amq.`, which AMQP reserves.
/// AMQP's bound is 255 bytes; the rest is room for the names of the queues beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} is not allowed; {rule}")]
pub struct BadName {
    kind: &'static str,
    name: String,
    rule: &'static str,
}

/// The longest part of a refused name that an error repeats, in characters.
const SHOWN: usize = 80;

impl BadName {
    fn new(kind: &'static str, name: &str, rule: &'static str) -> Self {
        let mut shown: String = name.chars().take(SHOWN).collect();
        if shown.len() < name.len() {
            shown.push('…');
        }
        BadName {
            kind,
            name: shown,
            rule,
        }
    }
}

impl PluginName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PluginName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bytes = text.as_bytes();
        let allowed = (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if allowed {
            Ok(PluginName(text.into()))
        } else {
            Err(BadName::new(
                "plugin",
                text,
                "use 1 to 64 letters, digits, `.`, `_` and `-`, a letter or digit first",
            ))
        }
    }
}

impl QueueName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = (1..=200).contains(&text.len())
            && !text.chars().any(char::is_control)
            && !text.starts_with("amq.");
        if allowed {
            Ok(QueueName(text.into()))
        } else {
            Err(BadName::new(
                "queue",
                text,
                "use 1 to 200 bytes without control characters, not starting with `amq.`",
            ))
        }
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_name_cannot_leave_its_directory() {
        let overlong = "x".repeat(65);
        for hostile in [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "a/b",
            "a\\b",
            ".hidden",
            "-rf",
            "a\0b",
            "ä",
            &overlong,
        ] {
            assert!(hostile.parse::<PluginName>().is_err(), "{hostile:?}");
        }
        for good in ["dots", "thumb-2", "a", "A.b_c", "0"] {
            assert_eq!(
                good.parse::<PluginName>().map(|n| n.to_string()),
                Ok(good.to_string())
            );
        }
    }

    #[test]
    fn a_queue_name_leaves_room_for_the_queues_beside_it() {
        assert!("x".repeat(200).parse::<QueueName>().is_ok());
        assert!("x".repeat(201).parse::<QueueName>().is_err());
        assert!("".parse::<QueueName>().is_err());
        assert!("amq.gen-1".parse::<QueueName>().is_err());
        assert!("a\nb".parse::<QueueName>().is_err());
    }

    #[test]
    fn an_error_does_not_repeat_a_huge_name() {
        let error = "/"
            .repeat(10_000)
            .parse::<PluginName>()
            .unwrap_err()
            .to_string();
        assert!(error.len() < 400, "{error}");
    }
}
