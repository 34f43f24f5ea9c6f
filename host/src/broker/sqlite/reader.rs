//! [`Reader`]: a second connection that answers questions beside the writer, and keeps it from nothing.

use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use rusqlite::Connection;

use super::clock::Clock;
use super::desk::Desk;
use super::store::Store;
use super::{fault, lock};
use crate::broker::BrokerError;

/// Reads the file. Cheap to clone; the clones share one connection.
#[derive(Clone)]
pub(super) struct Reader {
    /// None once closed.
    connection: Arc<Mutex<Option<Connection>>>,
    clock: Clock,
    desk: Desk,
}

impl Reader {
    pub(super) fn new(connection: Connection, clock: Clock, desk: Desk) -> Self {
        Reader {
            connection: Arc::new(Mutex::new(Some(connection))),
            clock,
            desk,
        }
    }

    /// Has `work` done on one unchanging view of the file, on a thread that may wait for the disk.
    pub(super) async fn read<T, W>(&self, work: W) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        W: FnOnce(&Store<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.connection);
        let clock = self.clock;
        let read = move || {
            let mut connection = lock(&shared);
            let Some(connection) = connection.as_mut() else {
                return Ok(None);
            };
            let transaction = connection.transaction()?;
            work(&Store::new(&transaction, "", clock.now())).map(Some)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Ok(None)) => Err(self.desk.closed()),
            Ok(Err(error)) => Err(fault::explain(self.desk.path(), &error)),
            Err(error) => Err(BrokerError::Unavailable(anyhow!(
                "reading the queue ended early: {error}"
            ))),
        }
    }

    /// Closes the connection, once what is being read has been.
    pub(super) fn close(&self) {
        drop(lock(&self.connection).take());
    }
}
