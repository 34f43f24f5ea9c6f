//! The section `[limits]`, in a manifest and in `scutwork.toml`: what is asked for, limit by limit.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use super::one_or_more;
use crate::sandbox::limits::Limits;
use crate::units::{self, show_duration, show_size};

/// What a file says of limits; none: nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsSection {
    #[serde(deserialize_with = "size_above_zero")]
    memory: Option<u64>,
    #[serde(deserialize_with = "duration_above_zero")]
    cpu: Option<Duration>,
    #[serde(deserialize_with = "duration_above_zero")]
    timeout: Option<Duration>,
    // Zero is meant here and below: a plugin that is to say nothing, or to ask for nothing.
    #[serde(deserialize_with = "units::size")]
    output: Option<u64>,
    log_lines: Option<u32>,
    #[serde(deserialize_with = "units::size")]
    log_bytes: Option<u64>,
    #[serde(deserialize_with = "one_or_more")]
    handles: Option<NonZeroU32>,
    #[serde(deserialize_with = "units::size")]
    random: Option<u64>,
    http_requests: Option<u32>,
    #[serde(deserialize_with = "units::size")]
    http_body: Option<u64>,
    #[serde(deserialize_with = "duration_above_zero")]
    http_timeout: Option<Duration>,
}

impl LimitsSection {
    /// What is asked for, and the default where nothing is.
    pub(crate) fn over(&self, default: Limits) -> Limits {
        Limits {
            memory: self.memory.unwrap_or(default.memory),
            cpu: self.cpu.unwrap_or(default.cpu),
            timeout: self.timeout.unwrap_or(default.timeout),
            output: self.output.unwrap_or(default.output),
            log_lines: self.log_lines.unwrap_or(default.log_lines),
            log_bytes: self.log_bytes.unwrap_or(default.log_bytes),
            handles: self.handles.map_or(default.handles, NonZeroU32::get),
            random: self.random.unwrap_or(default.random),
            http_requests: self.http_requests.unwrap_or(default.http_requests),
            http_body: self.http_body.unwrap_or(default.http_body),
            http_timeout: self.http_timeout.unwrap_or(default.http_timeout),
        }
    }

    /// What is asked for and above the ceiling, each as a sentence.
    pub(super) fn above(&self, ceiling: &Limits) -> Vec<String> {
        let lowered = |limit: &str, asked: String, ceiling: String| {
            format!(
                "limits.{limit} {asked} is over the operator's ceiling; runs are held to {ceiling}"
            )
        };
        let size = |limit, asked: Option<u64>, most| {
            asked
                .filter(|asked| *asked > most)
                .map(|asked| lowered(limit, show_size(asked), show_size(most)))
        };
        let time = |limit, asked: Option<Duration>, most| {
            asked
                .filter(|asked| *asked > most)
                .map(|asked| lowered(limit, show_duration(asked), show_duration(most)))
        };
        let number = |limit, asked: Option<u32>, most: u32| {
            asked
                .filter(|asked| *asked > most)
                .map(|asked| lowered(limit, asked.to_string(), most.to_string()))
        };
        [
            size("memory", self.memory, ceiling.memory),
            time("cpu", self.cpu, ceiling.cpu),
            time("timeout", self.timeout, ceiling.timeout),
            size("output", self.output, ceiling.output),
            number("log_lines", self.log_lines, ceiling.log_lines),
            size("log_bytes", self.log_bytes, ceiling.log_bytes),
            number(
                "handles",
                self.handles.map(NonZeroU32::get),
                ceiling.handles,
            ),
            size("random", self.random, ceiling.random),
            number("http_requests", self.http_requests, ceiling.http_requests),
            size("http_body", self.http_body, ceiling.http_body),
            time("http_timeout", self.http_timeout, ceiling.http_timeout),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn size_above_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match units::size(deserializer)? {
        Some(0) => Err(D::Error::custom("nothing runs with a limit of zero")),
        size => Ok(size),
    }
}

fn duration_above_zero<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    match units::duration(deserializer)? {
        Some(Duration::ZERO) => Err(D::Error::custom("nothing runs with a limit of zero")),
        duration => Ok(duration),
    }
}
