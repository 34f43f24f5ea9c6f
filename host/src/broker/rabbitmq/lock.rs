//! Locks: an exclusive queue is AMQP's one. It is its connection's alone, and goes with it.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::connection::{ACCESS_REFUSED, LOCKED, Link, Trouble, answer};

/// Takes a lock, if nobody else has it, for as long as the connection lives. Who may not declare a queue of
/// this name goes on without: then it is as if the lock were taken.
///
/// Of a lock's end the broker tells nobody, and it logs each try that fails.
pub(super) async fn try_lock(link: &Link, name: &str) -> Result<bool, Trouble> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    // The broker closes the channel on which it says no.
    let channel = link.channel().await?;
    match answer(channel.queue_declare(name.into(), exclusive, FieldTable::default())).await {
        Ok(_) => Ok(true),
        Err(trouble) if trouble.code == Some(ACCESS_REFUSED) => Ok(true),
        Err(trouble) if trouble.code == Some(LOCKED) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}
