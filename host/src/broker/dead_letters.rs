//! [`DeadLetters`]: one pass over a queue's dead letters, in which each can be put back on the queue or
//! dropped. Who asks for that, and why, is not known here.

use async_trait::async_trait;

use super::{BrokerError, Message};
use crate::settlement::DeadLetter;

/// A message among the dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Buried {
    /// What the pass that read it knows it by.
    pub place: u64,
    /// The message as it died.
    pub message: Message,
    /// Why it died. None: somebody else put it there and left no word.
    pub cause: Option<DeadLetter>,
}

/// A dead letter that could not be settled and is where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The task's id, if it has one.
    pub id: Option<String>,
    /// What stood against it.
    pub why: String,
}

/// One pass over the dead letters of a queue in pages, in the order in which the broker keeps them.
///
/// Looking takes nothing away: what is neither retried nor discarded is there afterwards, once, however
/// the pass ends; only its place among the others may be another. Several passes at once, from any
/// number of processes, do not take letters from one another's sight. Letters that are buried while it
/// goes on need not be among what it reads.
#[async_trait]
pub trait DeadLetters: Send {
    /// Reads on: at least one letter and at most `limit` (which is not zero), fewer where they are
    /// large, so that a page fits into memory. Empty: the pass has read them all.
    ///
    /// The letters of the page before can no longer be settled in this pass.
    ///
    /// Not cancel safe: letters that a dropped call has read are left out of the pass, and not lost.
    async fn next(&mut self, limit: usize) -> Result<Vec<Buried>, BrokerError>;

    /// Puts letters of this page back on their queue, due at once, with the body that they have now,
    /// the same id, and the first attempt before them. Returns those that it could not.
    ///
    /// Each is safe on the queue before it leaves the dead letters, so that a crash in between may
    /// leave it in both and never in neither. After an error, any of them may be in either or both.
    async fn retry(&mut self, letters: Vec<Buried>) -> Result<Vec<Kept>, BrokerError>;

    /// Drops letters of this page for good. Returns those that it could not.
    async fn discard(&mut self, letters: Vec<Buried>) -> Result<Vec<Kept>, BrokerError>;

    /// Ends the pass in order, and returns when what it settled is settled for everybody. Dropping it
    /// instead is safe, and leaves the rest to the broker.
    async fn close(self: Box<Self>) -> Result<(), BrokerError>;
}
