//! What the queue does to its tables: each operation is a few statements inside a transaction that
//! the caller begins and commits. No clock, no threads, no locks.

mod dead;
mod oversight;
mod suspects;

use std::cell::Cell;

use rusqlite::{Connection, OptionalExtension, params};

use super::row;
use crate::broker::{Message, Record, ReplyTo};
use crate::settlement::{DeadLetter, Reply, ReplyKind};

/// One process's view of the tables within a transaction.
pub(super) struct Store<'a> {
    connection: &'a Connection,
    /// Who holds what this process claims.
    owner: &'a str,
    /// Milliseconds since 1970, the same for the whole transaction.
    now: i64,
    /// Something was written that others may be waiting for.
    news: Cell<bool>,
    /// By how many more messages this process holds.
    taken: Cell<isize>,
}

/// A message that is now held by this process.
pub(super) struct Claimed {
    pub(super) id: i64,
    pub(super) crashes: u32,
    pub(super) message: Message,
}

/// What a claim came to.
pub(super) struct Claim {
    pub(super) taken: Vec<Claimed>,
    /// When nothing was taken: in how many milliseconds the next message is due, if any is.
    pub(super) next_due: Option<i64>,
    /// Nothing was taken because the queue is paused.
    pub(super) is_paused: bool,
}

/// What becomes of a held message. [`crate::settlement::Settlement`] in the words of the tables.
pub(super) enum Fate<'a> {
    Delete,
    /// Milliseconds from now.
    Requeue {
        after: i64,
        record: &'a Record,
    },
    Bury(&'a DeadLetter),
}

impl<'a> Store<'a> {
    pub(super) fn new(connection: &'a Connection, owner: &'a str, now: i64) -> Self {
        Store {
            connection,
            owner,
            now,
            news: Cell::new(false),
            taken: Cell::new(0),
        }
    }

    /// Whether someone who waits, here or in another process, should look again after the commit.
    pub(super) fn has_news(&self) -> bool {
        self.news.get()
    }

    /// By how many more messages this process holds after the commit.
    pub(super) fn taken(&self) -> isize {
        self.taken.get()
    }

    /// The queue's id, made if there is none.
    pub(super) fn queue(&self, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.find_queue(name)? {
            return Ok(id);
        }
        self.connection
            .prepare_cached("INSERT INTO queue (name) VALUES (?1)")?
            .insert([name])
    }

    /// The queue's id, if there is such a queue.
    pub(super) fn find_queue(&self, name: &str) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT id FROM queue WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()
    }

    /// Puts messages on a queue, due `after` milliseconds from now.
    pub(super) fn publish(
        &self,
        queue: &str,
        messages: &[Message],
        after: i64,
    ) -> rusqlite::Result<()> {
        let queue = self.queue(queue)?;
        let due = self.now.saturating_add(after);
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO message (plugin, task, content_type, headers, reply_to, correlation_id, notify, priority, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for message in messages {
            let id = row::insert_message(&mut insert, message)?;
            let rank = u8::MAX - message.priority.unwrap_or(0);
            self.wait(queue, rank.into(), due, id, 0, &message.record)?;
        }
        self.news.set(true);
        Ok(())
    }

    fn wait(
        &self,
        queue: i64,
        rank: i64,
        due: i64,
        id: i64,
        crashes: u32,
        record: &Record,
    ) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO waiting (queue, rank, due, id, crashes, attempt, parked_since, on_trial)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                queue,
                rank,
                due,
                id,
                crashes,
                record.attempt,
                record.parked_since.map(row::to_millis),
                record.on_trial
            ])
            .map(drop)
    }

    /// Takes up to `limit` messages that are due: the highest priority first, then the longest due,
    /// then the oldest. Writes nothing when there are none.
    ///
    /// The priorities are gone through one by one, so that messages of a high one that are due
    /// later are never walked over.
    pub(super) fn claim(&self, queue: i64, limit: usize) -> rusqlite::Result<Claim> {
        let mut taken = Vec::new();
        let mut next_due: Option<i64> = None;
        let mut rank = -1;
        if self.is_paused(queue)? {
            return Ok(Claim {
                taken,
                next_due,
                is_paused: true,
            });
        }
        while taken.len() < limit {
            let Some((next, due)) = self.first_of_rank_after(queue, rank)? else {
                break;
            };
            rank = next;
            if due <= self.now {
                let room = limit - taken.len();
                self.claim_rank(queue, rank, room, &mut taken)?;
            } else {
                next_due = Some(next_due.map_or(due, |other| other.min(due)));
            }
        }
        Ok(Claim {
            taken,
            next_due: next_due.map(|due| due - self.now),
            is_paused: false,
        })
    }

    fn first_of_rank_after(&self, queue: i64, rank: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        self.connection
            .prepare_cached(
                "SELECT rank, due FROM waiting WHERE queue = ?1 AND rank > ?2 AND NOT on_trial
                 ORDER BY rank, due LIMIT 1",
            )?
            .query_row([queue, rank], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    fn claim_rank(
        &self,
        queue: i64,
        rank: i64,
        limit: usize,
        taken: &mut Vec<Claimed>,
    ) -> rusqlite::Result<()> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.claim_where(
            queue,
            "w.rank = ?2 AND w.due <= ?3 AND NOT w.on_trial ORDER BY w.due, w.id LIMIT ?4",
            params![queue, rank, self.now, limit],
            taken,
        )
    }

    /// Moves what `which` picks of a queue from waiting to held.
    fn claim_where(
        &self,
        queue: i64,
        which: &str,
        values: &[&dyn rusqlite::ToSql],
        taken: &mut Vec<Claimed>,
    ) -> rusqlite::Result<()> {
        let first = taken.len();
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT w.id, w.rank, w.due, w.crashes, w.attempt, w.parked_since, w.on_trial, {}
             FROM waiting w CROSS JOIN message m ON m.id = w.id
             WHERE w.queue = ?1 AND {which}",
            row::MESSAGE_COLUMNS
        ))?;
        let mut places = Vec::new();
        let mut rows = select.query(values)?;
        while let Some(found) = rows.next()? {
            places.push((found.get::<_, i64>(1)?, found.get::<_, i64>(2)?));
            taken.push(Claimed {
                id: found.get(0)?,
                crashes: found.get(3)?,
                message: row::message(found, 7, row::record(found, 4)?)?,
            });
        }
        drop(rows);
        let mut unqueue = self.connection.prepare_cached(
            "DELETE FROM waiting WHERE queue = ?1 AND rank = ?2 AND due = ?3 AND id = ?4",
        )?;
        let mut hold = self.connection.prepare_cached(
            "INSERT INTO held (id, owner, queue, rank, due, crashes, attempt, parked_since, on_trial)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        self.taken
            .update(|count| count.saturating_add_unsigned(places.len()));
        for (claimed, (rank, due)) in taken[first..].iter().zip(places) {
            let record = &claimed.message.record;
            unqueue.execute([queue, rank, due, claimed.id])?;
            hold.execute(params![
                claimed.id,
                self.owner,
                queue,
                rank,
                due,
                claimed.crashes,
                record.attempt,
                record.parked_since.map(row::to_millis),
                record.on_trial
            ])?;
        }
        Ok(())
    }

    /// Ends a hold. False: it was no longer ours, and nothing was changed.
    ///
    /// `crashes` is how many there were when it was claimed, which tells it from a later one of ours.
    /// `made_up_id` is the task's id if the message came without one and keeps it from now on.
    pub(super) fn settle(
        &self,
        id: i64,
        crashes: u32,
        fate: &Fate<'_>,
        made_up_id: Option<&str>,
        reply: Option<(&ReplyTo, &Reply)>,
    ) -> rusqlite::Result<bool> {
        let held = self
            .connection
            .prepare_cached(
                "DELETE FROM held WHERE id = ?1 AND owner = ?2 AND crashes = ?3
                 RETURNING queue, rank",
            )?
            .query_row(params![id, self.owner, crashes], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((queue, rank)) = held else {
            return Ok(false);
        };
        self.taken.update(|count| count - 1);
        match fate {
            Fate::Delete => {
                self.connection
                    .prepare_cached("DELETE FROM message WHERE id = ?1")?
                    .execute([id])?;
            }
            Fate::Requeue { after, record } => {
                let due = self.now.saturating_add(*after);
                self.wait(queue, rank, due, id, 0, record)?;
                self.news.set(true);
            }
            Fate::Bury(letter) => self.bury(id, queue, letter)?,
        }
        if let Some(task) = made_up_id
            && !matches!(fate, Fate::Delete)
        {
            self.connection
                .prepare_cached("UPDATE message SET task = ?2 WHERE id = ?1")?
                .execute(params![id, task])?;
        }
        if let Some((reply_to, reply)) = reply {
            self.reply(reply_to, reply)?;
        }
        Ok(true)
    }

    fn reply(&self, reply_to: &ReplyTo, reply: &Reply) -> rusqlite::Result<()> {
        self.news.set(true);
        self.connection
            .prepare_cached(
                "INSERT INTO reply (address, correlation_id, kind, task, attempt, content_type, body, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                reply_to.address,
                reply_to.correlation_id,
                reply.kind.as_str(),
                reply.task,
                reply.attempt,
                reply.content_type,
                &reply.body[..],
                self.now
            ])
            .map(drop)
    }

    /// Gives a message of ours back to its old place, unless it is no longer ours.
    pub(super) fn give_back(&self, id: i64, crashed: bool) -> rusqlite::Result<()> {
        let moved = self.put_back("id = ?2 AND owner = ?1", params![self.owner, id], crashed)?;
        self.taken
            .update(|count| count.saturating_sub_unsigned(moved));
        Ok(())
    }

    /// Gives everything that `owner` holds back to its old place, counts a crash against each, and
    /// returns how many they were.
    pub(super) fn recover(&self, owner: &str) -> rusqlite::Result<usize> {
        self.put_back("owner = ?1", params![owner], true)
    }

    fn put_back(
        &self,
        which: &str,
        values: &[&dyn rusqlite::ToSql],
        crashed: bool,
    ) -> rusqlite::Result<usize> {
        let crash = u8::from(crashed);
        let moved = self
            .connection
            .prepare_cached(&format!(
                "INSERT INTO waiting (queue, rank, due, id, crashes, attempt, parked_since, on_trial)
                 SELECT queue, rank, due, id, crashes + {crash}, attempt, parked_since, on_trial
                 FROM held WHERE {which}"
            ))?
            .execute(values)?;
        if moved > 0 {
            self.connection
                .prepare_cached(&format!("DELETE FROM held WHERE {which}"))?
                .execute(values)?;
            self.news.set(true);
        }
        Ok(moved)
    }

    /// Everyone who holds a message.
    pub(super) fn owners(&self) -> rusqlite::Result<Vec<String>> {
        self.connection
            .prepare_cached("SELECT DISTINCT owner FROM held")?
            .query_map([], |row| row.get(0))?
            .collect()
    }

    /// Takes up to `limit` replies at an address, the oldest first. Writes nothing when there are
    /// none.
    pub(super) fn take_replies(
        &self,
        address: &str,
        limit: u32,
    ) -> rusqlite::Result<Vec<(Option<String>, Reply)>> {
        let mut ids = Vec::new();
        let mut select = self.connection.prepare_cached(
            "SELECT id, correlation_id, kind, task, attempt, content_type, body FROM reply
             WHERE address = ?1 ORDER BY id LIMIT ?2",
        )?;
        let replies = select
            .query_map(params![address, limit], |row| {
                ids.push(row.get::<_, i64>(0)?);
                let reply = Reply {
                    kind: ReplyKind::from_word(&row.get::<_, String>(2)?),
                    task: row.get(3)?,
                    attempt: row.get(4)?,
                    content_type: row.get(5)?,
                    body: row.get::<_, Vec<u8>>(6)?.into(),
                };
                Ok((row.get(1)?, reply))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM reply WHERE id = ?1")?;
        for id in ids {
            delete.execute([id])?;
        }
        Ok(replies)
    }

    /// Drops replies that nobody has fetched within `age` milliseconds.
    pub(super) fn prune_replies(&self, age: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM reply WHERE at < ?1")?
            .execute([self.now.saturating_sub(age)])
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
