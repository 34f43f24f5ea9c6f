//! [`RetryPolicy`]: the one place that decides between a retry and a dead letter. Pure: no clock, no dice, no
//! broker.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{DeadLetter, Reply, ReplyKind, Settlement};
use crate::broker::Record;
use crate::outcome::{Failure, Outcome};

/// The longest delay that a retry or a delayed submit may have: 30 days.
pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How the wait grows from attempt to attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// The wait after the first attempt.
    pub initial: Duration,
    /// By what each wait is longer than the one before.
    pub factor: f64,
    /// No wait is longer.
    pub max: Duration,
    /// The share by which a wait is shortened or lengthened at random, so that tasks that failed
    /// together do not come back together. 0.1 is ten per cent either way.
    pub jitter: f64,
}

/// When a failed task runs again, and when it is given up.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How many attempts a task has in all.
    pub max_attempts: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

/// How long tasks wait for a plugin that is not here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parking {
    /// How often to look again.
    pub every: Duration,
    /// For how long in all.
    pub ttl: Duration,
}

/// What a decision rests on beside the outcome.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The task's id.
    pub task: &'a str,
    /// The bookkeeping that the delivery came with.
    pub record: &'a Record,
    /// The plugin that was asked for.
    pub plugin: Option<&'a str>,
    /// The sha256 of the plugin that ran.
    pub digest: Option<&'a str>,
    /// This worker.
    pub worker: &'a str,
    /// Now.
    pub now: SystemTime,
    /// A random number from 0 to 1, for the jitter.
    pub dice: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            initial: Duration::from_secs(15),
            factor: 2.0,
            max: Duration::from_secs(60 * 60),
            jitter: 0.1,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 5,
            backoff: Backoff::default(),
        }
    }
}

impl Default for Parking {
    fn default() -> Self {
        Parking {
            every: Duration::from_secs(5),
            ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl RetryPolicy {
    /// Decides what becomes of a task whose run had this outcome.
    pub fn settle(&self, outcome: Outcome, parking: Parking, facts: &Facts<'_>) -> Settlement {
        let failure = match outcome {
            Outcome::Done(output) => {
                return Settlement::Done {
                    reply: Reply {
                        kind: ReplyKind::Done,
                        task: facts.task.to_owned(),
                        attempt: facts.record.attempt,
                        content_type: output.content_type,
                        body: output.body,
                    },
                };
            }
            Outcome::Interrupted => {
                return Settlement::Release {
                    after: Duration::ZERO,
                    record: facts.record.clone(),
                };
            }
            Outcome::Failed(failure) => failure,
        };
        match &failure {
            Failure::PluginError { delay, .. } => self.retry_or_die(&failure, *delay, facts),
            Failure::Trapped { .. } | Failure::LimitExceeded { .. } => {
                self.retry_or_die(&failure, None, facts)
            }
            Failure::UnknownPlugin { .. } => park_or_die(&failure, parking, facts),
            Failure::Rejected { .. } | Failure::BadTask(_) | Failure::Crashed { .. } => {
                die(&failure, facts)
            }
        }
    }

    fn retry_or_die(
        &self,
        failure: &Failure,
        asked: Option<Duration>,
        facts: &Facts<'_>,
    ) -> Settlement {
        let attempt = facts.record.attempt;
        if attempt >= self.max_attempts {
            return die(failure, facts);
        }
        Settlement::Retry {
            after: asked
                .unwrap_or_else(|| self.backoff.after(attempt, facts.dice))
                .min(MAX_DELAY),
            record: Record {
                attempt: attempt + 1,
                parked_since: None,
                on_trial: false,
            },
            reply: failure_reply(ReplyKind::Retry, failure, facts),
        }
    }
}

impl Backoff {
    /// The wait after attempt `attempt` (from 1); `dice`, from 0 to 1, picks within the jitter.
    pub fn after(&self, attempt: u32, dice: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.factor.powi(exponent);
        // `min` also turns an overflow to infinity into the maximum.
        let bounded = grown.min(self.max.as_secs_f64());
        let jittered = bounded * (1.0 + self.jitter * (2.0 * dice - 1.0));
        Duration::try_from_secs_f64(jittered)
            .unwrap_or(MAX_DELAY)
            .min(MAX_DELAY)
    }
}

fn park_or_die(failure: &Failure, parking: Parking, facts: &Facts<'_>) -> Settlement {
    // One that is yet to come is of a clock that was set back, or made up: the wait begins now.
    let since = facts
        .record
        .parked_since
        .map_or(facts.now, |since| since.min(facts.now));
    let waited = facts.now.duration_since(since).unwrap_or_default();
    if waited >= parking.ttl {
        return die(failure, facts);
    }
    let is_first = facts.record.parked_since.is_none();
    Settlement::Park {
        after: parking.every.min(parking.ttl.saturating_sub(waited)),
        record: Record {
            parked_since: Some(since),
            ..facts.record.clone()
        },
        reply: is_first.then(|| failure_reply(ReplyKind::Parked, failure, facts)),
    }
}

fn die(failure: &Failure, facts: &Facts<'_>) -> Settlement {
    let attempts = match failure {
        // These never ran, or never came back from a run.
        Failure::UnknownPlugin { .. } | Failure::BadTask(_) | Failure::Crashed { .. } => {
            facts.record.attempt.saturating_sub(1)
        }
        Failure::PluginError { .. }
        | Failure::Rejected { .. }
        | Failure::Trapped { .. }
        | Failure::LimitExceeded { .. } => facts.record.attempt,
    };
    Settlement::Dead {
        letter: DeadLetter {
            reason: failure.kind().to_owned(),
            code: failure.code().map(str::to_owned),
            error: failure.to_string(),
            attempts,
            plugin: facts.plugin.map(str::to_owned),
            digest: facts.digest.map(str::to_owned),
            worker: facts.worker.to_owned(),
            at: facts.now,
        },
        reply: failure_reply(ReplyKind::Dead, failure, facts),
    }
}

fn failure_reply(kind: ReplyKind, failure: &Failure, facts: &Facts<'_>) -> Reply {
    Reply {
        kind,
        task: facts.task.to_owned(),
        attempt: facts.record.attempt,
        content_type: Some("text/plain; charset=utf-8".to_owned()),
        body: Bytes::from(failure.to_string()),
    }
}

#[cfg(test)]
mod tests;
