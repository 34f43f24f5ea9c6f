//! [`Known`]: what one connection has seen to be on the broker for one task queue, made where it was missing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::connection::{Link, Trouble};
use super::delay::{self, LEVELS};
use super::outlet::Destination;
use super::topology::{self, SAFE_AFTER};
use crate::name::QueueName;

/// What this connection has seen to be on the broker for one task queue.
pub(super) struct Known {
    queue: OnceCell<()>,
    dead: OnceCell<()>,
    suspects: OnceCell<()>,
    levels: [OnceCell<()>; LEVELS as usize],
    /// How often a level was found or made, and of how many of these times whoever moves what is delayed was
    /// told.
    news: AtomicU32,
    told: AtomicU32,
    /// When all that was made here is old enough to be relied on.
    safe_from: Mutex<Option<Instant>>,
}

impl Default for Known {
    fn default() -> Self {
        Known {
            queue: OnceCell::new(),
            dead: OnceCell::new(),
            suspects: OnceCell::new(),
            levels: std::array::from_fn(|_| OnceCell::new()),
            news: AtomicU32::new(0),
            told: AtomicU32::new(0),
            safe_from: Mutex::default(),
        }
    }
}

impl Known {
    /// Sees that the queues are there by which a message gets to where it goes.
    pub(super) async fn ensure(&self, link: &Link, to: Destination<'_>) -> Result<(), Trouble> {
        match to {
            Destination::Queue(queue) => self.ensure_queue(link, queue).await,
            Destination::Delay(queue, level) => {
                self.ensure_queue(link, queue).await?;
                self.ensure_levels(link, queue, level).await
            }
            Destination::Dead(queue) => {
                let name = topology::dead_name(queue);
                self.ensure_own(&self.dead, link, &name).await
            }
            Destination::Suspects(queue) => {
                let name = topology::suspects_name(queue);
                self.ensure_own(&self.suspects, link, &name).await
            }
            Destination::Reply(_) => Ok(()),
        }
    }

    async fn ensure_queue(&self, link: &Link, queue: &QueueName) -> Result<(), Trouble> {
        let ensure = async || {
            let was_made = topology::ensure_queue(link, queue.as_str()).await?;
            self.note(was_made);
            Ok(())
        };
        self.queue.get_or_try_init(ensure).await.copied()
    }

    async fn ensure_own(
        &self,
        cell: &OnceCell<()>,
        link: &Link,
        name: &str,
    ) -> Result<(), Trouble> {
        let ensure = async || {
            let was_made = topology::ensure_own_queue(link, name).await?;
            self.note(was_made);
            Ok(())
        };
        cell.get_or_try_init(ensure).await.copied()
    }

    /// From the lowest up, so that whoever looks for them knows the highest by the first gap.
    async fn ensure_levels(&self, link: &Link, queue: &QueueName, top: u32) -> Result<(), Trouble> {
        for (level, cell) in (0..=top).zip(&self.levels) {
            let is_news = !cell.initialized();
            let name = delay::level_name(queue, level);
            self.ensure_own(cell, link, &name).await?;
            self.news.fetch_add(u32::from(is_news), Ordering::Relaxed);
        }
        Ok(())
    }

    /// What whoever moves what is delayed was not told of yet. None: it knows all.
    pub(super) fn news(&self) -> Option<u32> {
        let news = self.news.load(Ordering::Relaxed);
        (self.told.load(Ordering::Relaxed) < news).then_some(news)
    }

    /// It was told of this.
    pub(super) fn told(&self, news: u32) {
        self.told.fetch_max(news, Ordering::Relaxed);
    }

    fn note(&self, was_made: bool) {
        if was_made {
            let mut safe_from = self
                .safe_from
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *safe_from = Some(Instant::now() + SAFE_AFTER);
        }
    }

    /// Waits until all that was made is old enough to be relied on.
    pub(super) async fn age(&self) {
        let safe_from = *self
            .safe_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(safe_from) = safe_from {
            tokio::time::sleep_until(safe_from).await;
        }
    }
}
