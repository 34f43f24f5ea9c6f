//! What a batch costs in statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::super::{Durability, schema};
use super::*;

const BATCH: usize = 32;

/// What a claim asks once for the whole batch: whether the queue is paused, what is due first, what is
/// due.
const OF_A_CLAIM: usize = 3;
/// What takes a message out of the queue: it leaves one table for another, as it is claimed and as it is
/// done.
const OF_A_MESSAGE: usize = 4;

#[test]
fn a_batch_takes_four_statements_a_message_and_three_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (mut connection, clock) = schema::open(&path, Durability::Normal).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let counter = move |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(..) = event {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    let traced = connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(counter));
    traced.unwrap();
    let store = Store::new(&connection, "me", clock.now());
    let messages = vec![Message::default(); BATCH];
    store.publish("work", &messages, 0).unwrap();
    let queue = store.queue("work").unwrap();

    let before = count.swap(0, Ordering::Relaxed);
    assert!(before > BATCH, "{before} statements: they are not counted");
    let claim = store.claim(queue, BATCH).unwrap();
    assert_eq!(claim.taken.len(), BATCH);
    for Claimed { id, crashes, .. } in claim.taken {
        let is_ours = store.settle(id, crashes, &Fate::Delete, None, None);
        assert!(is_ours.unwrap());
    }
    let statements = count.load(Ordering::Relaxed);
    assert_eq!(statements, OF_A_CLAIM + OF_A_MESSAGE * BATCH);
}
