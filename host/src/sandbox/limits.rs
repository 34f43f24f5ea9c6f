//! [`Limits`]: what one run may use.

use std::time::Duration;

use super::engine::{MAX_INSTANCES, TABLE_ELEMENTS};
use crate::outcome::Limit;
use crate::units::{show_duration, show_size};

/// What one run may use. Reaching one of the log's cuts what follows; reaching any other ends that
/// run and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories and tables of the task together, in bytes.
    pub memory: u64,
    /// Time that a processor spends on it.
    pub cpu: Duration,
    /// Time by the wall clock, sleeping and host calls included.
    pub timeout: Duration,
    /// What it returns, in bytes.
    pub output: u64,
    /// Lines that it writes, by `log`, stdout and stderr together.
    pub log_lines: u32,
    /// What all its lines have, names and values of fields included, in bytes.
    pub log_bytes: u64,
    /// Handles that it holds at once: streams, pollables, requests, descriptors.
    pub handles: u32,
    /// Random bytes that it asks for in all.
    pub random: u64,
    /// HTTP requests that it makes in all.
    pub http_requests: u32,
    /// What the body of one HTTP request or response has, in bytes.
    pub http_body: u64,
    /// How long one HTTP request takes, its response's body included.
    pub http_timeout: Duration,
}

/// What a plugin's calls may go down, in bytes of stack. It is the same for all plugins.
pub(super) const STACK: usize = 512 << 10;

impl Default for Limits {
    /// What a plugin has without a manifest.
    fn default() -> Self {
        Limits {
            memory: 64 << 20,
            cpu: Duration::from_secs(10),
            timeout: Duration::from_secs(5 * 60),
            output: 1 << 20,
            log_lines: 1_000,
            log_bytes: 256 << 10,
            handles: 10_000,
            random: 16 << 20,
            http_requests: 1_000,
            http_body: 16 << 20,
            http_timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The most that any manifest can set, unless the operator says otherwise.
    pub const CEILING: Limits = Limits {
        memory: 1 << 30,
        cpu: Duration::from_secs(60 * 60),
        timeout: Duration::from_secs(24 * 60 * 60),
        output: 64 << 20,
        log_lines: 100_000,
        log_bytes: 64 << 20,
        handles: 100_000,
        random: 1 << 30,
        http_requests: 100_000,
        http_body: 1 << 30,
        http_timeout: Duration::from_secs(60 * 60),
    };

    /// Each limit, or the ceiling's where that is lower.
    #[must_use]
    pub fn under(self, ceiling: &Limits) -> Limits {
        Limits {
            memory: self.memory.min(ceiling.memory),
            cpu: self.cpu.min(ceiling.cpu),
            timeout: self.timeout.min(ceiling.timeout),
            output: self.output.min(ceiling.output),
            log_lines: self.log_lines.min(ceiling.log_lines),
            log_bytes: self.log_bytes.min(ceiling.log_bytes),
            handles: self.handles.min(ceiling.handles),
            random: self.random.min(ceiling.random),
            http_requests: self.http_requests.min(ceiling.http_requests),
            http_body: self.http_body.min(ceiling.http_body),
            http_timeout: self.http_timeout.min(ceiling.http_timeout),
        }
    }

    /// One limit as people write it.
    pub(super) fn show(&self, limit: Limit) -> String {
        match limit {
            Limit::Memory => show_size(self.memory),
            Limit::Cpu => show_duration(self.cpu),
            Limit::Timeout => show_duration(self.timeout),
            Limit::Output => show_size(self.output),
            Limit::Stack => show_size(STACK as u64),
            Limit::Table => format!("{TABLE_ELEMENTS} elements"),
            Limit::Instances => MAX_INSTANCES.to_string(),
            Limit::Handles => self.handles.to_string(),
            Limit::Random => show_size(self.random),
            Limit::HttpRequests => self.http_requests.to_string(),
            Limit::HttpBody => show_size(self.http_body),
        }
    }
}

/// What raises a limit of a plugin.
pub(super) fn remedy(limit: Limit, limits: &Limits, ceiling: &Limits, plugin: &str) -> String {
    let is_highest = match limit {
        Limit::Memory => limits.memory >= ceiling.memory,
        Limit::Cpu => limits.cpu >= ceiling.cpu,
        Limit::Timeout => limits.timeout >= ceiling.timeout,
        Limit::Output => limits.output >= ceiling.output,
        Limit::Stack | Limit::Table | Limit::Instances => true,
        Limit::Handles => limits.handles >= ceiling.handles,
        Limit::Random => limits.random >= ceiling.random,
        Limit::HttpRequests => limits.http_requests >= ceiling.http_requests,
        Limit::HttpBody => limits.http_body >= ceiling.http_body,
    };
    match limit.setting() {
        Some(setting) => raise(setting, is_highest, plugin),
        None => format!("it is the same for all plugins: {}", spare(limit)),
    }
}

/// What a plugin can do about a limit that nobody can raise.
fn spare(limit: Limit) -> &'static str {
    match limit {
        Limit::Stack => "let it call less deeply",
        Limit::Table => "let it keep fewer references in one table",
        Limit::Instances => "build it of fewer modules",
        Limit::Memory
        | Limit::Cpu
        | Limit::Timeout
        | Limit::Output
        | Limit::Handles
        | Limit::Random
        | Limit::HttpRequests
        | Limit::HttpBody => "let it use less",
    }
}

/// Where a setting is raised: in the manifest, or where the operator's ceiling is.
pub(super) fn raise(setting: &str, is_highest: bool, plugin: &str) -> String {
    if is_highest {
        format!("it is this worker's highest: raise limits.{setting} in scutwork.toml")
    } else {
        format!("raise limits.{setting} in {plugin}.toml")
    }
}
