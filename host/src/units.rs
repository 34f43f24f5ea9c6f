//! Sizes and durations as people write them: `64MiB`, `10s`, `1h 30m`.
//!
//! For use with serde's `deserialize_with` and clap's `value_parser`; the parsers refuse what cannot
//! be meant, so that nobody behind them checks again.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A number of bytes: `64MiB`, `1MB`, or a plain number.
///
/// # Errors
/// A sentence that says how to write one.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("{text:?} is not a size; write for example 64MiB, 1MB or 4096"))
}

/// A length of time: `10s`, `1h 30m`, `250ms`.
///
/// # Errors
/// A sentence that says how to write one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration; write for example 10s, 5m or 1h 30m"))
}

/// `64MiB`: as [`parse_size`] reads it, exact.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes} bytes")
}

/// `1m 30s`: as [`parse_duration`] reads it, to the millisecond.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(Duration::from_millis(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    ))
    .to_string()
}

/// [`parse_size`] for serde.
///
/// # Errors
/// The deserializer's own, and [`parse_size`]'s.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size such as \"64MiB\", or a number of bytes")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(Some(bytes)),
        Size::Text(text) => parse_size(&text)
            .map(Some)
            .map_err(serde::de::Error::custom),
    }
}

/// [`parse_duration`] for serde.
///
/// # Errors
/// The deserializer's own, and [`parse_duration`]'s.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration such as \"10s\"")]
    enum Length {
        Text(String),
        Number(f64),
    }
    match Length::deserialize(deserializer)? {
        Length::Text(text) => parse_duration(&text)
            .map(Some)
            .map_err(serde::de::Error::custom),
        Length::Number(number) => Err(serde::de::Error::custom(format!(
            "{number} has no unit; write for example \"{number}s\" or \"5m\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_as_the_same() {
        for bytes in [0, 1, 1023, 1024, 1500, 64 << 20, 3 << 30] {
            let shown = show_size(bytes);
            assert_eq!(
                parse_size(shown.trim_end_matches(" bytes")),
                Ok(bytes),
                "{shown}"
            );
        }
        for millis in [0, 1, 1500, 90_000, 3_600_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        assert!(parse_size("lots").unwrap_err().contains("64MiB"));
        assert!(parse_size("-1").is_err());
        assert!(parse_duration("5").unwrap_err().contains("10s"));
    }
}
