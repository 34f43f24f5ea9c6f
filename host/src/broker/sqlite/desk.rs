//! The desk: where the rest of the process hands its work to the writer and waits for the answer.
//!
//! It knows who waits for what; which work shares a transaction is the writer's business.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::patience::Patience;
use super::store::Store;
use crate::broker::BrokerError;

/// How many callers may wait for the writer before the next one waits for a place. Also the most
/// that share one transaction.
pub(super) const PLACES: usize = 1024;

/// What the callers of one writer share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    inbox: mpsc::Sender<Box<dyn Job>>,
    shared: Arc<Shared>,
}

/// What the desk shares with its writer.
pub(super) struct Shared {
    /// Steps whenever someone who waits should look again.
    pub(super) wake: watch::Sender<u64>,
    /// Messages that lost their holder in this process; they go back within a tick.
    strays: Mutex<Vec<Stray>>,
    pub(super) open: AtomicBool,
    pub(super) closing: Notify,
    pub(super) patience: Patience,
    pub(super) path: PathBuf,
}

/// A message whose holder in this process is gone without having settled it.
pub(super) struct Stray {
    pub(super) id: i64,
    /// It had been handed out, and may be what made its holder go.
    pub(super) crashed: bool,
}

/// Which transactions a piece of work can share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Brings something; always writes.
    Give,
    /// The same, and it is the end of something that was taken.
    Settle,
    /// Takes what is there, after all that gives; writes nothing if nothing is there.
    Take,
}

/// A piece of work and whoever waits for it.
pub(super) trait Job: Send {
    fn kind(&self) -> Kind;
    /// Does the work. It may be called again, when the transaction was rolled back.
    fn run(&mut self, store: &Store<'_>) -> rusqlite::Result<()>;
    /// Answers, once it is known what became of the transaction.
    fn finish(self: Box<Self>, outcome: Result<(), BrokerError>, shared: &Shared);
}

struct Asked<T, W> {
    kind: Kind,
    work: W,
    value: Option<T>,
    answer: oneshot::Sender<Result<T, BrokerError>>,
    unwanted: fn(T) -> Vec<Stray>,
}

impl<T, W> Job for Asked<T, W>
where
    T: Send,
    W: FnMut(&Store<'_>) -> rusqlite::Result<T> + Send,
{
    fn kind(&self) -> Kind {
        self.kind
    }

    fn run(&mut self, store: &Store<'_>) -> rusqlite::Result<()> {
        // What a try before came to may hold what this one takes.
        self.value = None;
        self.value = Some((self.work)(store)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), BrokerError>, shared: &Shared) {
        let value = self.value;
        let answer = outcome.map(|()| value.expect("a job that was committed has run"));
        if let Err(Ok(unwanted)) = self.answer.send(answer) {
            shared.stray((self.unwanted)(unwanted));
        }
    }
}

/// The receiving end of a question to the writer.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, BrokerError>>;

/// A place in the writer's queue.
pub(super) struct Place<'a> {
    permit: mpsc::Permit<'a, Box<dyn Job>>,
    desk: &'a Desk,
}

impl Place<'_> {
    /// Takes the place for work whose result goes back by `unwanted` if nobody waits for it then.
    pub(super) fn ask<T, W>(self, kind: Kind, unwanted: fn(T) -> Vec<Stray>, work: W) -> Answer<T>
    where
        T: Send + 'static,
        W: FnMut(&Store<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        self.permit.send(Box::new(Asked {
            kind,
            work,
            value: None,
            answer,
            unwanted,
        }));
        let inbox = &self.desk.inbox;
        let waiting = inbox.max_capacity() - inbox.capacity();
        self.desk.shared.patience.came(waiting);
        receiver
    }
}

impl Desk {
    /// A desk, and the writer's end of it: the work that comes in, and what both share.
    pub(super) fn open(path: PathBuf) -> (Desk, mpsc::Receiver<Box<dyn Job>>, Arc<Shared>) {
        let (inbox, jobs) = mpsc::channel(PLACES);
        let shared = Arc::new(Shared {
            wake: watch::Sender::new(0),
            strays: Mutex::default(),
            open: AtomicBool::new(true),
            closing: Notify::new(),
            patience: Patience::new(),
            path,
        });
        let desk = Desk {
            inbox,
            shared: Arc::clone(&shared),
        };
        (desk, jobs, shared)
    }

    /// Waits for a place in the writer's queue. Cancel safe.
    ///
    /// # Errors
    /// When the broker was closed.
    pub(super) async fn place(&self) -> Result<Place<'_>, BrokerError> {
        match self.inbox.reserve().await {
            Ok(permit) => Ok(Place { permit, desk: self }),
            Err(_) => Err(self.closed()),
        }
    }

    /// A place in the writer's queue, if there is one free now.
    pub(super) fn try_place(&self) -> Option<Place<'_>> {
        let permit = self.inbox.try_reserve().ok()?;
        Some(Place { permit, desk: self })
    }

    /// Has `work` done within a transaction, and returns once it is committed.
    pub(super) async fn ask<T, W>(&self, work: W) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        W: FnMut(&Store<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = self.place().await?;
        let answer = place.ask(Kind::Give, |_| Vec::new(), work);
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// The file that the work is done on.
    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Why nothing is answered any more.
    pub(super) fn closed(&self) -> BrokerError {
        BrokerError::Unavailable(anyhow!(
            "the queue {} was closed by this process",
            self.shared.path.display()
        ))
    }

    /// Whether what this process holds is still its own.
    pub(super) fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Tells the writer to finish what was asked, give back what is held, and end.
    pub(super) fn close(&self) {
        self.shared.closing.notify_one();
    }

    /// Steps whenever there may be something new, from this process or another.
    pub(super) fn wake(&self) -> watch::Receiver<u64> {
        self.shared.wake.subscribe()
    }

    /// Sends messages back whose holder is gone.
    pub(super) fn stray(&self, strays: impl IntoIterator<Item = Stray>) {
        self.shared.stray(strays);
    }
}

impl Shared {
    /// Tells everyone in this process who waits to look again.
    pub(super) fn wake(&self) {
        self.wake.send_modify(|step| *step += 1);
    }

    /// [`Desk::stray`].
    pub(super) fn stray(&self, strays: impl IntoIterator<Item = Stray>) {
        self.lock_strays().extend(strays);
    }

    /// All strays so far; the caller sends them back.
    pub(super) fn take_strays(&self) -> Vec<Stray> {
        std::mem::take(&mut *self.lock_strays())
    }

    fn lock_strays(&self) -> std::sync::MutexGuard<'_, Vec<Stray>> {
        // A list of ids has no state in which a panic could leave it broken.
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
