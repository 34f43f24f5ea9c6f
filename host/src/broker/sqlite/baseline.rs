//! What the database alone takes for a worker's work: claims and completions on one thread, with nobody
//! who waits, wakes or asks. `scutwork bench` holds the queue against it.

use std::time::{Duration, Instant};

use rusqlite::TransactionBehavior;

use super::clock::Clock;
use super::store::{Fate, Store};
use super::{SqliteOptions, fault, schema};
use crate::broker::{BrokerError, Message};
use crate::name::QueueName;

/// Messages that are published in one transaction.
const PUBLISHED_AT_ONCE: usize = 5_000;

/// Fills a queue with so many copies of a message, and measures how long it takes to claim and
/// complete them all, `batch` of them in each transaction: one completes the batch before and claims
/// the next, as the writer of a busy queue does. Blocks.
///
/// # Errors
/// When the file cannot be used.
pub fn claim_and_complete(
    options: &SqliteOptions,
    queue: &QueueName,
    message: &Message,
    tasks: usize,
    batch: usize,
) -> Result<Duration, BrokerError> {
    let path = schema::resolve(&options.path)?;
    let (mut connection, clock) = schema::open(&path, options.durability)?;
    let mut measured = || -> rusqlite::Result<Duration> {
        let mut left = tasks;
        while left > 0 {
            let some = left.min(PUBLISHED_AT_ONCE);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            store(&transaction, clock).publish(queue.as_str(), &vec![message.clone(); some], 0)?;
            transaction.commit()?;
            left -= some;
        }
        let began = Instant::now();
        let mut held: Vec<(i64, u32)> = Vec::new();
        loop {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let claimed = {
                let store = store(&transaction, clock);
                for (id, crashes) in held.drain(..) {
                    store.settle(id, crashes, &Fate::Delete, None, None)?;
                }
                let queue = store.queue(queue.as_str())?;
                store.claim(queue, batch)?.taken
            };
            transaction.commit()?;
            if claimed.is_empty() {
                return Ok(began.elapsed());
            }
            held.extend(claimed.iter().map(|claimed| (claimed.id, claimed.crashes)));
        }
    };
    measured().map_err(|error| fault::explain(&path, &error))
}

/// Measures so many times how long it takes to publish one message and to claim it, each durable, one
/// after the other. Blocks.
///
/// # Errors
/// When the file cannot be used.
pub fn publish_and_claim(
    options: &SqliteOptions,
    queue: &QueueName,
    message: &Message,
    times: usize,
) -> Result<Vec<Duration>, BrokerError> {
    let path = schema::resolve(&options.path)?;
    let (mut connection, clock) = schema::open(&path, options.durability)?;
    let mut once = || -> rusqlite::Result<Duration> {
        let began = Instant::now();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        store(&transaction, clock).publish(queue.as_str(), std::slice::from_ref(message), 0)?;
        transaction.commit()?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let claimed = {
            let store = store(&transaction, clock);
            let queue = store.queue(queue.as_str())?;
            store.claim(queue, 1)?.taken
        };
        transaction.commit()?;
        let took = began.elapsed();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for claimed in claimed {
            store(&transaction, clock).settle(
                claimed.id,
                claimed.crashes,
                &Fate::Delete,
                None,
                None,
            )?;
        }
        transaction.commit()?;
        Ok(took)
    };
    (0..times)
        .map(|_| once().map_err(|error| fault::explain(&path, &error)))
        .collect()
}

fn store(connection: &rusqlite::Connection, clock: Clock) -> Store<'_> {
    Store::new(connection, "baseline", clock.now())
}
