//! [`SqliteDeadLetters`]: a pass over rows, page by page in the order of their keys. It holds nothing
//! between two pages, so nobody waits for it.

use async_trait::async_trait;

use super::desk::Desk;
use super::reader::Reader;
use super::store::Store;
use crate::broker::{BrokerError, Buried, DeadLetters, Kept};
use crate::name::QueueName;

/// A pass over one queue's dead letters.
pub(super) struct SqliteDeadLetters {
    desk: Desk,
    reader: Reader,
    queue: QueueName,
    /// The last one read.
    after: i64,
}

impl SqliteDeadLetters {
    pub(super) fn new(desk: Desk, reader: Reader, queue: QueueName) -> Self {
        SqliteDeadLetters {
            desk,
            reader,
            queue,
            after: 0,
        }
    }

    /// Does the same to each letter, all in one transaction. `settle` says whether it was still there.
    async fn settle(
        &self,
        letters: Vec<Buried>,
        settle: fn(&Store<'_>, i64, &Buried) -> rusqlite::Result<bool>,
    ) -> Result<Vec<Kept>, BrokerError> {
        let queue = self.queue.clone();
        self.desk
            .ask(move |store| {
                let Some(queue) = store.find_queue(queue.as_str())? else {
                    return Ok(letters.iter().map(gone).collect());
                };
                let mut kept = Vec::new();
                for letter in &letters {
                    if !settle(store, queue, letter)? {
                        kept.push(gone(letter));
                    }
                }
                Ok(kept)
            })
            .await
    }
}

#[async_trait]
impl DeadLetters for SqliteDeadLetters {
    async fn next(&mut self, limit: usize) -> Result<Vec<Buried>, BrokerError> {
        let (queue, after) = (self.queue.clone(), self.after);
        let (letters, last) = self
            .reader
            .read(move |store| store.dead_letters(queue.as_str(), after, limit))
            .await?;
        self.after = last;
        Ok(letters)
    }

    async fn retry(&mut self, letters: Vec<Buried>) -> Result<Vec<Kept>, BrokerError> {
        self.settle(letters, |store, queue, letter| store.revive(queue, letter))
            .await
    }

    async fn discard(&mut self, letters: Vec<Buried>) -> Result<Vec<Kept>, BrokerError> {
        self.settle(letters, |store, queue, letter| store.discard(queue, letter))
            .await
    }

    async fn close(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }
}

fn gone(letter: &Buried) -> Kept {
    Kept {
        id: letter.message.id.clone(),
        why: "somebody else retried or discarded it meanwhile".to_owned(),
    }
}
