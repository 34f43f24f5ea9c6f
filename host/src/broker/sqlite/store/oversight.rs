//! What an operator sees of a whole queue and does to it: counts, pauses and purges.

use rusqlite::params;

use super::Store;
use crate::broker::{Depth, Part};

impl Store<'_> {
    /// Counts a queue's messages. None: there is no such queue.
    pub(in crate::broker::sqlite) fn depth(&self, queue: &str) -> rusqlite::Result<Option<Depth>> {
        let Some(queue) = self.find_queue(queue)? else {
            return Ok(None);
        };
        let count = |sql: &str| {
            self.connection
                .prepare_cached(sql)?
                .query_row(params![queue], |row| row.get::<_, i64>(0))
                .map(i64::unsigned_abs)
        };
        let (waiting, ready) = self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE due <= ?2) FROM waiting WHERE queue = ?1",
            )?
            .query_row([queue, self.now], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?;
        Ok(Some(Depth {
            ready: ready.unsigned_abs(),
            running: Some(count("SELECT count(*) FROM held WHERE queue = ?1")?),
            delayed: (waiting - ready).unsigned_abs(),
            dead: count("SELECT count(*) FROM dead WHERE queue = ?1")?,
            consumers: None,
        }))
    }

    /// Whether a queue is paused, by its id.
    pub(in crate::broker::sqlite) fn is_paused(&self, queue: i64) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT paused FROM queue WHERE id = ?1")?
            .query_row([queue], |row| row.get(0))
    }

    /// Whether a queue is paused, by its name. One that is not there is not.
    pub(in crate::broker::sqlite) fn is_paused_by_name(
        &self,
        queue: &str,
    ) -> rusqlite::Result<bool> {
        match self.find_queue(queue)? {
            Some(queue) => self.is_paused(queue),
            None => Ok(false),
        }
    }

    /// Pauses or resumes a queue, making it if there is none.
    pub(in crate::broker::sqlite) fn set_paused(
        &self,
        queue: &str,
        is_paused: bool,
    ) -> rusqlite::Result<()> {
        let queue = self.queue(queue)?;
        self.connection
            .prepare_cached("UPDATE queue SET paused = ?2 WHERE id = ?1")?
            .execute(params![queue, is_paused])?;
        self.news.set(true);
        Ok(())
    }

    /// Removes one part of a queue's messages and counts them. None: there is no such queue.
    pub(in crate::broker::sqlite) fn purge(
        &self,
        queue: &str,
        part: Part,
    ) -> rusqlite::Result<Option<u64>> {
        let Some(queue) = self.find_queue(queue)? else {
            return Ok(None);
        };
        let rows = match part {
            Part::Ready => "waiting WHERE queue = ?1 AND due <= ?2",
            Part::Delayed => "waiting WHERE queue = ?1 AND due > ?2",
            // The time does not matter, but every number must be used.
            Part::Dead => "dead WHERE queue = ?1 AND ?2 IS NOT NULL",
        };
        let range = [queue, self.now];
        self.connection.execute(
            &format!("DELETE FROM message WHERE id IN (SELECT id FROM {rows})"),
            range,
        )?;
        let removed = self
            .connection
            .execute(&format!("DELETE FROM {rows}"), range)?;
        Ok(Some(removed as u64))
    }
}
