//! [`Settlement`]: what the broker is told about a delivery, and [`RetryPolicy`], the one place that
//! decides between a retry and a dead letter. Pure: no clock, no dice, no broker.

mod triage;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::broker::Record;
use crate::outcome::{Failure, Outcome};

pub use self::triage::{Triage, triage};

/// The longest delay that a retry or a delayed submit may have: 30 days.
pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// The task is done: send the reply if there is one and somebody asked, then ack.
    Done {
        /// The plugin's output.
        reply: Reply,
    },
    /// Run again after a delay, with an attempt spent.
    Retry {
        /// How long from now.
        after: Duration,
        /// The bookkeeping of the next attempt.
        record: Record,
        /// For a requester that wants to hear of retries.
        reply: Reply,
    },
    /// Deliver again after a delay (zero: at once), with no attempt spent. What is on trial then goes
    /// among the suspects.
    Release {
        /// How long from now.
        after: Duration,
        /// The bookkeeping that goes with it.
        record: Record,
    },
    /// Deliver again after a delay, with no attempt spent: its plugin is not here yet.
    Park {
        /// How long from now.
        after: Duration,
        /// The bookkeeping that goes with it.
        record: Record,
        /// The first time, for a requester that wants to hear of more than the end.
        reply: Option<Reply>,
    },
    /// Keep the message aside with its cause.
    Dead {
        /// The cause.
        letter: DeadLetter,
        /// For whoever asked for a reply.
        reply: Reply,
    },
}

impl Settlement {
    /// What a requester is told by it.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Settlement::Done { reply }
            | Settlement::Retry { reply, .. }
            | Settlement::Dead { reply, .. } => Some(reply),
            Settlement::Park { reply, .. } => reply.as_ref(),
            Settlement::Release { .. } => None,
        }
    }
}

/// Why and how a task died. It travels with the message to the dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The kind of the last failure, one of [`Failure::kind`]'s words.
    pub reason: String,
    /// The plugin's own word for the failure, where it gave one.
    pub code: Option<String>,
    /// What happened, for a person.
    pub error: String,
    /// How many attempts were spent.
    pub attempts: u32,
    /// The plugin that ran last, as the message named it or the default.
    pub plugin: Option<String>,
    /// The sha256 of the plugin that ran last, in hex.
    pub digest: Option<String>,
    /// The worker that gave up.
    pub worker: String,
    /// When.
    pub at: SystemTime,
}

/// What a requester is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// What happened.
    pub kind: ReplyKind,
    /// The task's id.
    pub task: String,
    /// The attempt that it happened in.
    pub attempt: u32,
    /// What the body is.
    pub content_type: Option<String>,
    /// The plugin's output, or the text of the failure.
    pub body: Bytes,
}

/// Header `scutwork-outcome` of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// The body is the plugin's output.
    Done,
    /// The task is run again later; the body says why. Only for requesters that ask for it.
    Retry,
    /// The task waits for its plugin; the body says which. Only for requesters that ask for it.
    Parked,
    /// The task is dead; the body says why.
    Dead,
}

impl ReplyKind {
    /// The word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplyKind::Done => "done",
            ReplyKind::Retry => "retry",
            ReplyKind::Parked => "parked",
            ReplyKind::Dead => "dead",
        }
    }

    /// The kind that a header's word means. A reply without one comes from somebody else's worker
    /// and is an output.
    pub fn from_word(word: &str) -> Self {
        match word {
            "retry" => ReplyKind::Retry,
            "parked" => ReplyKind::Parked,
            "dead" => ReplyKind::Dead,
            _ => ReplyKind::Done,
        }
    }
}

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
mod tests {
    use super::*;
    use crate::outcome::{Limit, Output};
    use crate::task::BadTask;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn settle(outcome: Outcome, record: Record, now: SystemTime) -> Settlement {
        let facts = Facts {
            task: "id",
            record: &record,
            plugin: Some("thumb"),
            digest: Some("d1"),
            worker: "w1",
            now,
            dice: 0.5,
        };
        RetryPolicy::default().settle(outcome, Parking::default(), &facts)
    }

    fn attempt(attempt: u32) -> Record {
        Record {
            attempt,
            ..Record::default()
        }
    }

    fn asks_for_retry(delay: Option<Duration>) -> Outcome {
        Outcome::Failed(Failure::PluginError {
            code: "c".into(),
            message: "m".into(),
            delay,
        })
    }

    #[test]
    fn a_done_task_is_acked_with_its_output() {
        let output = Output {
            content_type: Some("a/b".into()),
            body: Bytes::from_static(b"out"),
        };
        match settle(Outcome::Done(output), attempt(2), NOW) {
            Settlement::Done { reply } => {
                assert_eq!(
                    (reply.kind, reply.attempt, &reply.body[..]),
                    (ReplyKind::Done, 2, &b"out"[..])
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_that_may_pass_spend_an_attempt_and_come_back_with_backoff() {
        let passing = [
            asks_for_retry(None),
            Outcome::Failed(Failure::Trapped {
                message: "t".into(),
            }),
            Outcome::Failed(Failure::LimitExceeded {
                limit: Limit::Memory,
                message: "l".into(),
            }),
        ];
        for outcome in passing {
            match settle(outcome, attempt(2), NOW) {
                Settlement::Retry {
                    after,
                    record,
                    reply,
                } => {
                    assert_eq!(after, Duration::from_secs(30));
                    assert_eq!(record.attempt, 3);
                    assert_eq!(reply.kind, ReplyKind::Retry);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_delay_that_the_plugin_asks_for_is_kept_up_to_thirty_days() {
        for (asked, kept) in [
            (Duration::from_millis(7), Duration::from_millis(7)),
            (Duration::MAX, MAX_DELAY),
        ] {
            match settle(asks_for_retry(Some(asked)), attempt(1), NOW) {
                Settlement::Retry { after, .. } => assert_eq!(after, kept),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_last_attempt_dies_with_its_cause() {
        match settle(asks_for_retry(None), attempt(5), NOW) {
            Settlement::Dead { letter, reply } => {
                assert_eq!(
                    (letter.reason.as_str(), letter.attempts),
                    ("plugin-error", 5)
                );
                assert_eq!(
                    (letter.code.as_deref(), letter.digest.as_deref()),
                    (Some("c"), Some("d1"))
                );
                assert_eq!(
                    (reply.kind, &reply.body[..]),
                    (ReplyKind::Dead, &b"c: m"[..])
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_can_never_work_dies_at_once() {
        let hopeless = [
            (
                Failure::Rejected {
                    code: "c".into(),
                    message: "m".into(),
                },
                "rejected",
                1,
            ),
            (
                Failure::BadTask(BadTask::PayloadTooLarge { size: 2, limit: 1 }),
                "bad-task",
                0,
            ),
            (Failure::Crashed { crashes: 4 }, "crashed", 0),
        ];
        for (failure, reason, attempts) in hopeless {
            match settle(Outcome::Failed(failure), attempt(1), NOW) {
                Settlement::Dead { letter, .. } => {
                    assert_eq!(
                        (letter.reason.as_str(), letter.attempts),
                        (reason, attempts)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_interrupted_task_keeps_its_attempt_and_its_record() {
        let record = Record {
            attempt: 3,
            parked_since: Some(NOW),
            on_trial: true,
        };
        assert_eq!(
            settle(Outcome::Interrupted, record.clone(), NOW),
            Settlement::Release {
                after: Duration::ZERO,
                record
            }
        );
    }

    #[test]
    fn a_task_for_an_unknown_plugin_is_parked_until_its_time_is_over() {
        let unknown = || {
            Outcome::Failed(Failure::UnknownPlugin {
                message: "m".into(),
            })
        };
        let ttl = Parking::default().ttl;
        let Settlement::Park {
            after,
            record,
            reply,
        } = settle(unknown(), attempt(1), NOW)
        else {
            panic!("not parked");
        };
        assert_eq!((after, record.attempt), (Duration::from_secs(5), 1));
        assert_eq!(record.parked_since, Some(NOW));
        assert_eq!(
            reply.map(|reply| reply.kind),
            Some(ReplyKind::Parked),
            "told the first time"
        );
        let last = Duration::from_secs(1);
        let late = settle(unknown(), record.clone(), NOW + ttl - last);
        assert_eq!(
            late,
            Settlement::Park {
                after: last,
                record: record.clone(),
                reply: None
            }
        );
        let over = settle(unknown(), record, NOW + ttl);
        assert!(
            matches!(over, Settlement::Dead { letter, .. } if letter.reason == "unknown-plugin")
        );
    }

    #[test]
    fn a_task_parked_since_the_future_waits_from_now_on() {
        let outcome = Outcome::Failed(Failure::UnknownPlugin {
            message: "m".into(),
        });
        let record = Record {
            parked_since: Some(NOW + Duration::from_secs(1 << 31)),
            ..attempt(1)
        };
        let Settlement::Park { record, .. } = settle(outcome, record, NOW) else {
            panic!("not parked");
        };
        assert_eq!(record.parked_since, Some(NOW));
    }

    #[test]
    fn backoff_grows_to_its_maximum_and_never_overflows() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = [1, 2, 3, 9, 10, u32::MAX]
            .map(|n| backoff.after(n, 0.5).as_secs())
            .into();
        assert_eq!(waits, [15, 30, 60, 3600, 3600, 3600]);
        assert_eq!(backoff.after(1, 0.0), Duration::from_secs_f64(13.5));
        assert_eq!(backoff.after(1, 1.0), Duration::from_secs_f64(16.5));
        let endless = Backoff {
            initial: Duration::MAX,
            factor: f64::MAX,
            max: Duration::MAX,
            jitter: 1.0,
        };
        assert_eq!(endless.after(9, 1.0), MAX_DELAY);
    }
}
