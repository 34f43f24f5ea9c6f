//! What only the embedded queue can do or get wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use scutwork::broker::Broker;
use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::name::QueueName;

use crate::broker_contract::{Subject, printed};

/// A file in a folder of its own.
pub(crate) struct SqliteSubject {
    folder: tempfile::TempDir,
    queues: AtomicU32,
}

impl SqliteSubject {
    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }
}

#[async_trait]
impl Subject for SqliteSubject {
    async fn start() -> Self {
        SqliteSubject {
            folder: tempfile::tempdir().unwrap(),
            queues: AtomicU32::new(0),
        }
    }

    async fn connect(&self) -> Arc<dyn Broker> {
        Arc::new(Sqlite::open(SqliteOptions::new(self.path()), printed()).unwrap())
    }

    fn queue(&self) -> QueueName {
        let number = self.queues.fetch_add(1, Ordering::Relaxed);
        format!("queue-{number}").parse().unwrap()
    }
}
