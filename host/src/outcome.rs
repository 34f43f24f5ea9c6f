//! [`Outcome`]: what one run of a plugin meant, before anyone decides what becomes of the task.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::task::BadTask;

/// What one attempt came to. A plugin's failure is a value: an `Err` beside it would mean that the
/// host could not do its own job.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The plugin returned ok.
    Done(Output),
    /// The task is not done.
    Failed(Failure),
    /// The worker ended the run because it is stopping; the attempt is not spent.
    Interrupted,
}

/// What a plugin gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// What the body is, as the plugin said it.
    pub content_type: Option<String>,
    /// The result.
    pub body: Bytes,
}

/// Why a task is not done.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The plugin asked for a retry.
    PluginError {
        /// The plugin's own short word for it.
        code: String,
        /// The plugin's own text.
        message: String,
        /// The wait that the plugin asked for.
        delay: Option<Duration>,
    },
    /// The plugin said that the task can never work.
    Rejected {
        /// The plugin's own short word for it.
        code: String,
        /// The plugin's own text.
        message: String,
    },
    /// The guest trapped: a panic, an abort, an unreachable instruction.
    Trapped {
        /// The trap, the backtrace where there is one, and the tail of stderr.
        message: String,
    },
    /// The guest met one of its limits and was ended.
    LimitExceeded {
        /// Which limit.
        limit: Limit,
        /// The limit's value, the plugin, and the setting to change.
        message: String,
    },
    /// No plugin of that name is here, perhaps not yet.
    UnknownPlugin {
        /// What is missing and how to bring it.
        message: String,
    },
    /// The message is no task.
    BadTask(BadTask),
    /// Workers died while they ran this task, and again when it ran alone.
    Crashed {
        /// How many times when it ran alone.
        crashes: u32,
    },
}

/// What begins the part of a failure's text that differs from run to run though they failed of the same:
/// what the run used, and what the guest said last.
pub const USED: &str = "\nused: ";

/// The limits that end a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All linear memories and tables of the task together.
    Memory,
    /// Time spent executing.
    Cpu,
    /// Time by the wall clock, sleeping and host calls included.
    Timeout,
    /// Size of what the plugin returned.
    Output,
    /// Depth of its calls.
    Stack,
    /// Elements in one table.
    Table,
    /// Instances of its modules.
    Instances,
    /// Handles held at once.
    Handles,
    /// Random bytes in all.
    Random,
    /// HTTP requests in all.
    HttpRequests,
    /// Size of the body of one HTTP request or response.
    HttpBody,
}

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time that a processor spent on the guest and its host calls. What was over within a millisecond counts for as
    /// long as it took.
    pub cpu: Duration,
    /// Time by the wall clock.
    pub wall: Duration,
    /// The most that its memories and tables held together, in bytes.
    pub peak_memory: u64,
}

impl Failure {
    /// The kind of failure as one stable word: what dead letters are grouped by.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::PluginError { .. } => "plugin-error",
            Failure::Rejected { .. } => "rejected",
            Failure::Trapped { .. } => "trapped",
            Failure::LimitExceeded { limit, .. } => limit.kind(),
            Failure::UnknownPlugin { .. } => "unknown-plugin",
            Failure::BadTask(_) => "bad-task",
            Failure::Crashed { .. } => "crashed",
        }
    }

    /// The plugin's own word for the failure, where it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Failure::PluginError { code, .. } | Failure::Rejected { code, .. } => Some(code),
            Failure::Trapped { .. }
            | Failure::LimitExceeded { .. }
            | Failure::UnknownPlugin { .. }
            | Failure::BadTask(_)
            | Failure::Crashed { .. } => None,
        }
    }
}

impl Limit {
    fn kind(self) -> &'static str {
        match self {
            Limit::Memory => "memory-limit",
            Limit::Cpu => "cpu-limit",
            Limit::Timeout => "timeout",
            Limit::Output => "output-limit",
            Limit::Stack => "stack-limit",
            Limit::Table => "table-limit",
            Limit::Instances => "instance-limit",
            Limit::Handles => "handle-limit",
            Limit::Random => "random-limit",
            Limit::HttpRequests => "http-request-limit",
            Limit::HttpBody => "http-body-limit",
        }
    }

    /// What the limit is called in a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Limit::Memory => "memory limit",
            Limit::Cpu => "cpu limit",
            Limit::Timeout => "timeout",
            Limit::Output => "output limit",
            Limit::Stack => "stack limit",
            Limit::Table => "table limit",
            Limit::Instances => "instance limit",
            Limit::Handles => "handle limit",
            Limit::Random => "random byte limit",
            Limit::HttpRequests => "http request limit",
            Limit::HttpBody => "http body limit",
        }
    }

    /// The key in `[limits]`, where it is one that can be set.
    pub(crate) fn setting(self) -> Option<&'static str> {
        match self {
            Limit::Memory => Some("memory"),
            Limit::Cpu => Some("cpu"),
            Limit::Timeout => Some("timeout"),
            Limit::Output => Some("output"),
            Limit::Stack | Limit::Table | Limit::Instances => None,
            Limit::Handles => Some("handles"),
            Limit::Random => Some("random"),
            Limit::HttpRequests => Some("http_requests"),
            Limit::HttpBody => Some("http_body"),
        }
    }
}

/// What happened, in words for a person.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::PluginError { code, message, .. } | Failure::Rejected { code, message } => {
                write!(f, "{code}: {message}")
            }
            Failure::Trapped { message }
            | Failure::LimitExceeded { message, .. }
            | Failure::UnknownPlugin { message } => f.write_str(message),
            Failure::BadTask(bad) => bad.fmt(f),
            Failure::Crashed { crashes } => write!(
                f,
                "worker after worker died or lost its broker with this task, {crashes} of them while they ran nothing else"
            ),
        }
    }
}
