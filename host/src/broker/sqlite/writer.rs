//! The writer: one thread that owns the connection and puts everything that is asked of it at the
//! same time into one transaction, so that many callers share the price of one disk flush.
//!
//! It knows transactions and who lives; what is written is the business of those who ask.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::presence::Presence;
use super::store::Store;
use super::{fault, row};
use crate::broker::{BrokerError, Notice, NoticeSink};

/// How many callers may wait for the writer before the next one waits for a place. Also the most
/// that share one transaction.
const QUEUE: usize = 1024;

/// How often the writer looks for processes that died, and for what else time brings.
const TICK: Duration = Duration::from_secs(1);

/// How often old replies are dropped, in ticks.
const PRUNE_EVERY: u32 = 60;

/// Tries of a transaction that meets another process's, each as long as the connection's patience.
const TRIES: u32 = 3;

/// What the callers of one writer share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    inbox: mpsc::Sender<Box<dyn Job>>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Steps whenever someone who waits should look again.
    wake: watch::Sender<u64>,
    /// Messages that lost their holder in this process; they go back within a tick.
    strays: Mutex<Vec<Stray>>,
    open: AtomicBool,
    closing: Notify,
    path: PathBuf,
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
    /// Takes what is there, after all that gives; writes nothing if nothing is there.
    Take,
}

/// A piece of work and whoever waits for it.
trait Job: Send {
    fn kind(&self) -> Kind;
    /// Does the work. It may be called again, when the transaction was rolled back.
    fn run(&mut self, store: &Store<'_>) -> rusqlite::Result<()>;
    /// Answers, once it is known what became of the transaction.
    fn finish(self: Box<Self>, outcome: Result<(), BrokerError>, strays: &Mutex<Vec<Stray>>);
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
        self.value = Some((self.work)(store)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), BrokerError>, strays: &Mutex<Vec<Stray>>) {
        let value = self.value;
        let answer = outcome.map(|()| value.expect("a job that was committed has run"));
        if let Err(Ok(unwanted)) = self.answer.send(answer) {
            lock(strays).extend((self.unwanted)(unwanted));
        }
    }
}

/// The receiving end of a question to the writer.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, BrokerError>>;

/// A place in the writer's queue.
pub(super) struct Place<'a>(mpsc::Permit<'a, Box<dyn Job>>);

impl Place<'_> {
    /// Takes the place for work whose result goes back by `unwanted` if nobody waits for it then.
    pub(super) fn ask<T, W>(self, kind: Kind, unwanted: fn(T) -> Vec<Stray>, work: W) -> Answer<T>
    where
        T: Send + 'static,
        W: FnMut(&Store<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        self.0.send(Box::new(Asked {
            kind,
            work,
            value: None,
            answer,
            unwanted,
        }));
        receiver
    }
}

impl Desk {
    /// Waits for a place in the writer's queue. Cancel safe.
    ///
    /// # Errors
    /// When the broker was closed.
    pub(super) async fn place(&self) -> Result<Place<'_>, BrokerError> {
        let permit = self.inbox.reserve().await;
        permit.map(Place).map_err(|_| self.closed())
    }

    /// A place in the writer's queue, if there is one free now.
    pub(super) fn try_place(&self) -> Option<Place<'_>> {
        self.inbox.try_reserve().ok().map(Place)
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
        lock(&self.shared.strays).extend(strays);
    }
}

/// What the thread owns.
pub(super) struct Writer {
    connection: Connection,
    presence: Presence,
    // Held for its thread, which calls back until it is dropped.
    _watcher: Option<notify::RecommendedWatcher>,
    shared: Arc<Shared>,
    notices: NoticeSink,
    reply_ttl: Duration,
    ticks: u32,
}

impl Writer {
    /// Starts the thread. It ends after [`Desk::close`], with the connection closed.
    pub(super) fn start(
        connection: Connection,
        presence: Presence,
        path: PathBuf,
        reply_ttl: Duration,
        notices: NoticeSink,
    ) -> std::io::Result<(Desk, std::thread::JoinHandle<()>)> {
        let (inbox, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            wake: watch::Sender::new(0),
            strays: Mutex::default(),
            open: AtomicBool::new(true),
            closing: Notify::new(),
            path,
        });
        let bell = Arc::clone(&shared);
        let watcher = presence.listen(move || bell.wake.send_modify(|step| *step += 1));
        if let Err(error) = &watcher {
            notices(Notice::Warning(format!(
                "tasks that other processes submit are seen up to a second late: {error}"
            )));
        }
        let writer = Writer {
            connection,
            presence,
            _watcher: watcher.ok(),
            shared: Arc::clone(&shared),
            notices,
            reply_ttl,
            ticks: 0,
        };
        // The thread waits for jobs and for time alone; nothing else ever runs on it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || runtime.block_on(writer.serve(jobs)))?;
        Ok((Desk { inbox, shared }, thread))
    }

    async fn serve(mut self, mut inbox: mpsc::Receiver<Box<dyn Job>>) {
        let shared = Arc::clone(&self.shared);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs = Vec::new();
        loop {
            tokio::select! {
                // In this order, so that much work cannot put off the tick.
                biased;
                () = shared.closing.notified() => break,
                _ = tick.tick() => self.tend(),
                count = inbox.recv_many(&mut jobs, QUEUE) => {
                    if count == 0 {
                        break;
                    }
                    self.work(std::mem::take(&mut jobs));
                }
            }
        }
        inbox.close();
        while inbox.recv_many(&mut jobs, QUEUE).await > 0 {
            self.work(std::mem::take(&mut jobs));
        }
        self.leave();
    }

    /// Does the jobs in one transaction and answers each.
    fn work(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        // Claims last, so that they find what was published beside them.
        jobs.sort_by_key(|job| job.kind() == Kind::Take);
        let outcome = self.transact(&mut jobs);
        match outcome {
            // One of them may be what the database refuses; the others must not suffer for it.
            Err(error) if jobs.len() > 1 && !fault::is_passing(&error) => {
                for job in jobs {
                    let mut alone = vec![job];
                    let outcome = self.transact(&mut alone);
                    self.answer(alone, &outcome);
                }
            }
            outcome => self.answer(jobs, &outcome),
        }
    }

    fn answer(&self, jobs: Vec<Box<dyn Job>>, outcome: &rusqlite::Result<()>) {
        for job in jobs {
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(fault::explain(&self.shared.path, error)),
            };
            job.finish(outcome, &self.shared.strays);
        }
    }

    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let mut behavior = if jobs.iter().all(|job| job.kind() == Kind::Take) {
            // Claims that find nothing then neither write nor lock.
            TransactionBehavior::Deferred
        } else {
            TransactionBehavior::Immediate
        };
        let mut tries = 0;
        loop {
            let outcome = self.transaction(behavior, |store| {
                jobs.iter_mut().try_for_each(|job| job.run(store))
            });
            tries += 1;
            match outcome {
                // Another process wrote between the reading and the writing.
                Err(error) if fault::is_passing(&error) && tries < TRIES => {
                    behavior = TransactionBehavior::Immediate;
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs `work` in a transaction; once it is committed, wakes whoever waits for what it wrote.
    fn transaction<T>(
        &mut self,
        behavior: TransactionBehavior,
        mut work: impl FnMut(&Store<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let now = row::to_millis(SystemTime::now());
        let store = Store::new(&transaction, self.presence.id(), now);
        let value = work(&store)?;
        let has_news = store.has_news();
        transaction.commit()?;
        if has_news {
            self.shared.wake.send_modify(|step| *step += 1);
            if let Err(error) = self.presence.ring() {
                tracing::debug!(%error, "the bell cannot be rung; others look within a second");
            }
        }
        Ok(value)
    }

    /// What time brings: strays, processes that died, replies that nobody fetched.
    fn tend(&mut self) {
        if let Err(error) = self.return_strays().and_then(|()| self.recover_departed()) {
            tracing::warn!(error = %fault::explain(&self.shared.path, &error), "looking after the queue failed");
        }
        if self.ticks.is_multiple_of(PRUNE_EVERY) {
            let age = i64::try_from(self.reply_ttl.as_millis()).unwrap_or(i64::MAX);
            let pruned = self.transaction(TransactionBehavior::Immediate, |store| {
                store.prune_replies(age)
            });
            if let Err(error) = pruned {
                tracing::debug!(%error, "old replies stay for another minute");
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    fn return_strays(&mut self) -> rusqlite::Result<()> {
        let strays = std::mem::take(&mut *lock(&self.shared.strays));
        if strays.is_empty() {
            return Ok(());
        }
        let returned = self.transaction(TransactionBehavior::Immediate, |store| {
            strays
                .iter()
                .try_for_each(|stray| store.give_back(stray.id, stray.crashed))
        });
        if returned.is_err() {
            lock(&self.shared.strays).extend(strays);
        }
        returned
    }

    /// Gives back what processes held that live no longer.
    fn recover_departed(&mut self) -> rusqlite::Result<()> {
        let owners = self.transaction(TransactionBehavior::Deferred, |store| store.owners())?;
        let departed = match self.presence.departed(owners) {
            Ok(departed) => departed,
            Err(error) => {
                tracing::warn!(%error, "cannot tell which workers live; tasks of dead ones wait");
                return Ok(());
            }
        };
        for one in departed {
            let tasks = self.transaction(TransactionBehavior::Immediate, |store| {
                store.recover(&one.id)
            })?;
            // Only now, so that a crash of ours in between leaves it for the next to find.
            one.bury();
            if tasks > 0 {
                (self.notices)(Notice::Warning(format!(
                    "a worker died; {tasks} of its tasks went back to the queue"
                )));
            }
        }
        Ok(())
    }

    /// Gives back all that this process still holds, as from a worker that died: it was told to
    /// settle first. What cannot be given back now, others recover.
    fn leave(mut self) {
        let strays = self.return_strays();
        let own = self.presence.id().to_owned();
        let recovered = strays.and_then(|()| {
            let holds = self.transaction(TransactionBehavior::Deferred, |store| store.owners())?;
            if holds.contains(&own) {
                self.transaction(TransactionBehavior::Immediate, |store| store.recover(&own))?;
            }
            Ok(())
        });
        if let Err(error) = recovered {
            tracing::warn!(%error, "what this process held goes back when another one looks");
        }
        self.shared.open.store(false, Ordering::Release);
        self.shared.wake.send_modify(|step| *step += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A list of ids has no state in which a panic could leave it broken.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
