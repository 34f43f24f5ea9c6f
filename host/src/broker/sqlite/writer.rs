//! The writer: one thread that owns the connection and puts everything that is asked of it at the
//! same time into one transaction, so that many callers share the price of one disk flush. Who takes does
//! not even wait for that: what is taken runs while the disk is at work.
//!
//! It knows transactions and who lives; what is written is the business of those who ask.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::clock::Clock;
use super::desk::{Desk, Job, Kind, PLACES, Shared};
use super::fault;
use super::identity::Identity;
use super::log::Log;
use super::presence::Presence;
use super::store::Store;
use crate::broker::{Notice, NoticeSink};

/// How often the writer looks for processes that died, and for what else time brings.
const TICK: Duration = Duration::from_secs(1);

/// How often old replies are dropped, in ticks.
const PRUNE_EVERY: u32 = 60;

/// Tries of a transaction that meets another process's, each as long as the connection's patience.
const TRIES: u32 = 3;

/// How much of the time that a transaction took may be waited for more to share the next one.
const SHARE: u32 = 2;

/// The most of that.
const LINGER: Duration = Duration::from_micros(500);

/// How long after a transaction another one comes that is one of many.
const BUSY: Duration = Duration::from_millis(1);

/// Whether something was committed that others may be waiting for.
#[derive(Clone, Copy)]
struct News(bool);

/// A transaction that is over.
struct Past {
    took: Duration,
    ended: Instant,
}

/// The file, open for writing, with what belongs to it.
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) identity: Identity,
    pub(super) presence: Presence,
}

/// What the thread owns.
pub(super) struct Writer {
    connection: Connection,
    log: Log,
    clock: Clock,
    identity: Identity,
    presence: Presence,
    // Held for its thread, which calls back until it is dropped.
    _watcher: Option<notify::RecommendedWatcher>,
    shared: Arc<Shared>,
    notices: NoticeSink,
    reply_ttl: Duration,
    ticks: u32,
    /// About how many messages this process holds. Others may have taken some for those of a dead one.
    held: usize,
    last: Option<Past>,
    /// The last look after the queue failed, and was told of.
    is_failing: bool,
}

impl Writer {
    /// Starts the thread. It ends after [`Desk::close`], with the connection closed.
    pub(super) fn start(
        file: OpenFile,
        reply_ttl: Duration,
        notices: NoticeSink,
    ) -> std::io::Result<(Desk, std::thread::JoinHandle<()>)> {
        let OpenFile {
            path,
            connection,
            log,
            clock,
            identity,
            presence,
        } = file;
        let (desk, jobs, shared) = Desk::open(path);
        let bell = Arc::clone(&shared);
        let watcher = presence.listen(move || bell.wake());
        if let Err(error) = &watcher {
            notices(Notice::Warning(format!(
                "tasks that other processes submit are seen up to a second late: {error}"
            )));
        }
        let writer = Writer {
            connection,
            log,
            clock,
            identity,
            presence,
            _watcher: watcher.ok(),
            shared,
            notices,
            reply_ttl,
            ticks: 0,
            held: 0,
            last: None,
            is_failing: false,
        };
        // The thread waits for jobs and for time alone; nothing else ever runs on it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || runtime.block_on(writer.serve(jobs)))?;
        Ok((desk, thread))
    }

    async fn serve(mut self, mut inbox: mpsc::Receiver<Box<dyn Job>>) {
        let shared = Arc::clone(&self.shared);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs = Vec::new();
        loop {
            shared.patience.rest();
            tokio::select! {
                // In this order, so that much work cannot put off the tick.
                biased;
                () = shared.closing.notified() => break,
                _ = tick.tick() => self.tend(),
                count = inbox.recv_many(&mut jobs, PLACES) => {
                    if count == 0 {
                        break;
                    }
                    shared.patience.work();
                    self.await_company(&mut inbox, &mut jobs);
                    self.work(std::mem::take(&mut jobs));
                }
            }
        }
        inbox.close();
        while inbox.recv_many(&mut jobs, PLACES).await > 0 {
            self.work(std::mem::take(&mut jobs));
        }
        self.leave();
    }

    /// While much is settled, waits for what is soon settled too, until that is half of what is held: a
    /// transaction costs as much as many ends, and the other half runs while it goes on. One that comes alone is
    /// not kept waiting.
    fn await_company(
        &self,
        inbox: &mut mpsc::Receiver<Box<dyn Job>>,
        jobs: &mut Vec<Box<dyn Job>>,
    ) {
        let settled = jobs.iter().filter(|job| job.kind() == Kind::Settle).count();
        let Some(last) = &self.last else { return };
        let enough = self.held.div_ceil(2);
        if settled >= enough || settled == 0 || last.ended.elapsed() > BUSY {
            return;
        }
        let most = LINGER.min(last.took / SHARE);
        let missing = enough - settled;
        self.shared.patience.wait(missing, most, || inbox.len());
        // All at once: each taken by itself would lock what the next one to ask may wait for.
        let _ = inbox
            .recv_many(jobs, PLACES.saturating_sub(jobs.len()))
            .now_or_never();
    }

    /// Does the jobs in one transaction and answers each.
    fn work(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let began = Instant::now();
        // Claims last, so that they find what was published beside them.
        jobs.sort_by_key(|job| job.kind() == Kind::Take);
        let outcome = self.transact(&mut jobs);
        match outcome {
            // One of them may be what the database refuses; the others must not suffer for it.
            Err(error) if jobs.len() > 1 && !fault::is_passing(&error) => {
                for job in jobs {
                    let mut alone = vec![job];
                    let outcome = self.transact(&mut alone);
                    self.conclude(alone, outcome);
                }
            }
            outcome => self.conclude(jobs, outcome),
        }
        let ended = Instant::now();
        self.last = Some(Past {
            took: ended - began,
            ended,
        });
    }

    /// Answers each job: what takes at once, for what it took is there again after a loss of power; what gives
    /// when it is on the disk. Then others hear of it, so that nobody is told of an end that may yet be undone.
    fn conclude(&mut self, mut jobs: Vec<Box<dyn Job>>, outcome: rusqlite::Result<News>) {
        let given = jobs.iter().position(|job| job.kind() == Kind::Take);
        let taking = jobs.split_off(given.unwrap_or(jobs.len()));
        self.answer(taking, &outcome);
        let outcome = outcome.and_then(|news| {
            if !jobs.is_empty() {
                self.shared.patience.leave();
                let flushed = self.log.flush(&self.connection);
                self.shared.patience.work();
                flushed?;
            }
            Ok(news)
        });
        self.answer(jobs, &outcome);
        if let Ok(news) = outcome {
            self.tell(news);
        }
    }

    fn answer(&self, jobs: Vec<Box<dyn Job>>, outcome: &rusqlite::Result<News>) {
        for job in jobs {
            let outcome = match outcome {
                Ok(_) => Ok(()),
                Err(error) => Err(fault::explain(&self.shared.path, error)),
            };
            job.finish(outcome, &self.shared);
        }
    }

    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<News> {
        let mut behavior = if jobs.iter().all(|job| job.kind() == Kind::Take) {
            // Claims that find nothing then neither write nor lock.
            TransactionBehavior::Deferred
        } else {
            TransactionBehavior::Immediate
        };
        let mut tries = 0;
        loop {
            let outcome = self.commit(behavior, |store| {
                jobs.iter_mut().try_for_each(|job| job.run(store))
            });
            tries += 1;
            match outcome {
                // Another process wrote between the reading and the writing.
                Err(error) if fault::is_passing(&error) && tries < TRIES => {
                    behavior = TransactionBehavior::Immediate;
                }
                outcome => return outcome.map(|((), news)| news),
            }
        }
    }

    /// Runs `work` in a transaction; once it is committed, wakes whoever waits for what it wrote. A loss of
    /// power may undo it.
    fn transaction<T>(
        &mut self,
        behavior: TransactionBehavior,
        work: impl FnMut(&Store<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let (value, news) = self.commit(behavior, work)?;
        self.tell(news);
        Ok(value)
    }

    fn commit<T>(
        &mut self,
        behavior: TransactionBehavior,
        mut work: impl FnMut(&Store<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<(T, News)> {
        self.identity.check()?;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let store = Store::new(&transaction, self.presence.id(), self.clock.now());
        let value = work(&store)?;
        let (news, taken) = (News(store.has_news()), store.taken());
        transaction.commit()?;
        self.held = self.held.saturating_add_signed(taken);
        // Once more, so that nothing is confirmed that went with the file meanwhile.
        self.identity.check()?;
        Ok((value, news))
    }

    fn tell(&mut self, news: News) {
        let News(true) = news else {
            return;
        };
        self.shared.wake();
        if let Err(error) = self.presence.ring() {
            tracing::debug!(%error, "the bell cannot be rung; others look within a second");
        }
    }

    /// What time brings: strays, processes that died, replies that nobody fetched.
    fn tend(&mut self) {
        let tended = self.return_strays().and_then(|()| self.recover_departed());
        match tended {
            Ok(()) => self.is_failing = false,
            Err(_) if self.is_failing => {}
            Err(error) => {
                self.is_failing = true;
                tracing::warn!(error = %fault::explain(&self.shared.path, &error), "looking after the queue failed");
            }
        }
        if self.ticks.is_multiple_of(PRUNE_EVERY) {
            let age = i64::try_from(self.reply_ttl.as_millis()).unwrap_or(i64::MAX);
            let pruned = self.transaction(TransactionBehavior::Immediate, |store| {
                store.prune_replies(age)
            });
            if let Err(error) = pruned.and_then(|()| self.clock.note(&self.connection)) {
                tracing::debug!(%error, "old replies stay for another minute");
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    fn return_strays(&mut self) -> rusqlite::Result<()> {
        let strays = self.shared.take_strays();
        if strays.is_empty() {
            return Ok(());
        }
        let returned = self.transaction(TransactionBehavior::Immediate, |store| {
            strays
                .iter()
                .try_for_each(|stray| store.give_back(stray.id, stray.crashed))
        });
        if returned.is_err() {
            self.shared.stray(strays);
        }
        returned
    }

    /// Gives back what processes held that live no longer.
    fn recover_departed(&mut self) -> rusqlite::Result<()> {
        let owners = self.transaction(TransactionBehavior::Deferred, |store| store.owners())?;
        if let Err(error) = self.presence.renew() {
            tracing::debug!(%error, "others take this process for dead");
        }
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
        self.shared.wake();
    }
}
