//! [`Settlement`]: what the broker is told about a delivery, and by what that is decided.

mod policy;
mod triage;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::broker::Record;

pub use self::policy::{Backoff, Facts, MAX_DELAY, Parking, RetryPolicy};
pub use self::triage::{Triage, triage};

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
    /// The kind of the last failure, one of [`Failure::kind`](crate::outcome::Failure::kind)'s words.
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
