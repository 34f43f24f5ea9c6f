//! [`Sqlite`]: the embedded broker: queues in one file, shared by the processes of one machine, with
//! no server.
//!
//! Everything under here, and nothing elsewhere, names the database. A file that is on a network
//! share is not supported: its locks may not hold between machines.

pub mod baseline;
mod clock;
mod consumer;
mod dead_letters;
mod desk;
pub mod examination;
mod fault;
pub mod file_system;
mod identity;
mod log;
mod patience;
mod presence;
mod reader;
mod replies;
mod row;
mod schema;
mod slots;
mod store;
mod suspects;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;

use self::consumer::SqliteConsumer;
use self::dead_letters::SqliteDeadLetters;
use self::desk::Desk;
use self::identity::Identity;
use self::log::Log;
use self::presence::Presence;
use self::reader::Reader;
use self::replies::SqliteReplies;
use self::suspects::SqliteSuspects;
use self::writer::{OpenFile, Writer};
use super::{
    Broker, BrokerError, Consumer, DeadLetters, Depth, Message, Notice, NoticeSink, Part, Replies,
    Suspects,
};
use crate::name::QueueName;

/// How to open a file of queues.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file. It is made if there is none; its directory is not.
    pub path: PathBuf,
    /// What a confirmed task survives.
    pub durability: Durability,
    /// How long replies are kept for requesters that do not fetch them.
    pub reply_ttl: Duration,
}

/// What a confirmed task survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: every confirm waits for the disk.
    #[default]
    Full,
    /// The death of any process, but a loss of power may take the last second.
    Normal,
}

impl SqliteOptions {
    /// The file at `path`, with full durability and replies kept for an hour.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SqliteOptions {
            path: path.into(),
            durability: Durability::default(),
            reply_ttl: Duration::from_secs(60 * 60),
        }
    }
}

/// A file of queues, open in this process.
///
/// Dropping it has the same effect as [`Broker::close`], some time later.
pub struct Sqlite {
    path: PathBuf,
    desk: Desk,
    reader: Reader,
    notices: NoticeSink,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens the file, making it if there is none, and starts its writer. Blocks for as long as
    /// the disk takes.
    ///
    /// # Errors
    /// `Refused` when the file is not a queue, is damaged, was made by a newer scutwork or cannot be
    /// written; it is left as it was. `Unavailable` when the disk is full or another process keeps
    /// it locked.
    pub fn open(options: SqliteOptions, notices: NoticeSink) -> Result<Sqlite, BrokerError> {
        let path = schema::resolve(&options.path)?;
        if let Some(warning) = path.parent().and_then(file_system::warning) {
            notices(Notice::Warning(warning));
        }
        let (connection, clock) = schema::open(&path, options.durability)?;
        let log = Log::of(&connection, options.durability)
            .map_err(|error| fault::explain(&path, &error))?;
        let reader = schema::open_reader(&path)?;
        let identity = Identity::of(&path)
            .map_err(|_| fault::explain(&path, &rusqlite::Error::InvalidPath(path.clone())))?;
        let presence = Presence::announce(&path).map_err(|error| {
            BrokerError::Refused(anyhow!(
                "directory {}-owners cannot be written: {error}; it must lie beside the queue",
                path.display()
            ))
        })?;
        let file = OpenFile {
            path: path.clone(),
            connection,
            log,
            clock,
            identity,
            presence,
        };
        let (desk, thread) =
            Writer::start(file, options.reply_ttl, Arc::clone(&notices)).map_err(|error| {
                BrokerError::Unavailable(anyhow!("no thread for the queue: {error}"))
            })?;
        Ok(Sqlite {
            path,
            reader: Reader::new(reader, clock, desk.clone()),
            desk,
            notices,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The file, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl Broker for Sqlite {
    fn name(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn publish(
        &self,
        queue: &QueueName,
        messages: Vec<Message>,
        after: Option<Duration>,
    ) -> Result<(), BrokerError> {
        publish(&self.desk, queue, messages, after).await
    }

    async fn consume(
        &self,
        queue: &QueueName,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let name = queue.clone();
        let (id, is_paused) = self
            .desk
            .ask(move |store| {
                let id = store.queue(name.as_str())?;
                Ok((id, store.is_paused(id)?))
            })
            .await?;
        Ok(Box::new(SqliteConsumer::new(
            self.desk.clone(),
            id,
            queue.clone(),
            is_paused,
            prefetch,
            Arc::clone(&self.notices),
        )))
    }

    async fn suspects(&self, queue: &QueueName) -> Result<Box<dyn Suspects>, BrokerError> {
        let (desk, reader) = (self.desk.clone(), self.reader.clone());
        Ok(Box::new(SqliteSuspects::new(desk, reader, queue.clone())))
    }

    async fn replies(&self) -> Result<Box<dyn Replies>, BrokerError> {
        Ok(Box::new(SqliteReplies::new(self.desk.clone())))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Option<Depth>, BrokerError> {
        let name = queue.clone();
        self.reader
            .read(move |store| store.depth(name.as_str()))
            .await
    }

    async fn set_paused(&self, queue: &QueueName, is_paused: bool) -> Result<(), BrokerError> {
        let name = queue.clone();
        self.desk
            .ask(move |store| store.set_paused(name.as_str(), is_paused))
            .await
    }

    async fn is_paused(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        let name = queue.clone();
        self.reader
            .read(move |store| store.is_paused_by_name(name.as_str()))
            .await
    }

    async fn purge(&self, queue: &QueueName, part: Part) -> Result<Option<u64>, BrokerError> {
        let name = queue.clone();
        self.desk
            .ask(move |store| store.purge(name.as_str(), part))
            .await
    }

    async fn dead_letters(&self, queue: &QueueName) -> Result<Box<dyn DeadLetters>, BrokerError> {
        let (desk, reader) = (self.desk.clone(), self.reader.clone());
        Ok(Box::new(SqliteDeadLetters::new(
            desk,
            reader,
            queue.clone(),
        )))
    }

    async fn close(&self) {
        // First, so that the writer's connection is the last, which folds the log into the file.
        self.reader.close();
        self.desk.close();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // It has said why if it panicked, and there is nothing left to close then.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.desk.close();
    }
}

async fn publish(
    desk: &Desk,
    queue: &QueueName,
    messages: Vec<Message>,
    after: Option<Duration>,
) -> Result<(), BrokerError> {
    let queue = queue.clone();
    let after = after.unwrap_or_default().as_millis();
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    desk.ask(move |store| store.publish(queue.as_str(), &messages, after))
        .await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Neither a connection nor a handle can be left half changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
