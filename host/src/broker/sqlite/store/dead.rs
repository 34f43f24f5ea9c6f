//! What the queue does to its table of dead letters.

use rusqlite::{OptionalExtension, Row, params};

use super::super::row;
use super::Store;
use crate::broker::{Buried, Record};
use crate::settlement::DeadLetter;

/// After how many bytes of bodies a page is full.
const PAGE_BYTES: usize = 8 << 20;

impl Store<'_> {
    /// Puts a held message among the dead letters.
    pub(super) fn bury(&self, id: i64, queue: i64, letter: &DeadLetter) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO dead (id, queue, reason, code, error, attempts, plugin, digest, worker, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                id,
                queue,
                letter.reason,
                letter.code,
                letter.error,
                letter.attempts,
                letter.plugin,
                letter.digest,
                letter.worker,
                row::to_millis(letter.at)
            ])
            .map(drop)
    }

    /// Reads a page of a queue's dead letters, from the one after `after` on, and says which was the
    /// last.
    pub(in super::super) fn dead_letters(
        &self,
        queue: &str,
        after: i64,
        limit: usize,
    ) -> rusqlite::Result<(Vec<Buried>, i64)> {
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT d.id, d.reason, d.code, d.error, d.attempts, d.plugin, d.digest, d.worker, d.at, {}
             FROM dead d CROSS JOIN message m ON m.id = d.id
             WHERE d.queue = (SELECT id FROM queue WHERE name = ?1) AND d.id > ?2
             ORDER BY d.id LIMIT ?3",
            row::MESSAGE_COLUMNS
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = select.query(params![queue, after, limit])?;
        let mut letters = Vec::new();
        let (mut last, mut bytes) = (after, 0);
        while bytes < PAGE_BYTES
            && let Some(found) = rows.next()?
        {
            last = found.get(0)?;
            let letter = buried(found)?;
            bytes += letter.message.body.len();
            letters.push(letter);
        }
        Ok((letters, last))
    }

    /// Puts a dead letter back on its queue as a task that has never run. False: it is not there.
    pub(in super::super) fn revive(&self, queue: i64, letter: &Buried) -> rusqlite::Result<bool> {
        let Some(id) = self.exhume(queue, letter)? else {
            return Ok(false);
        };
        let priority = self
            .connection
            .prepare_cached("UPDATE message SET body = ?2 WHERE id = ?1 RETURNING priority")?
            .query_row(params![id, &letter.message.body[..]], |row| {
                row.get::<_, Option<u8>>(0)
            })?;
        let rank = u8::MAX - priority.unwrap_or(0);
        self.wait(queue, rank.into(), self.now, id, 0, &Record::default())?;
        self.news.set(true);
        Ok(true)
    }

    /// Drops a dead letter. False: it is not there.
    pub(in super::super) fn discard(&self, queue: i64, letter: &Buried) -> rusqlite::Result<bool> {
        let Some(id) = self.exhume(queue, letter)? else {
            return Ok(false);
        };
        self.connection
            .prepare_cached("DELETE FROM message WHERE id = ?1")?
            .execute([id])?;
        Ok(true)
    }

    /// Takes a letter from among the dead ones, and leaves its message.
    fn exhume(&self, queue: i64, letter: &Buried) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("DELETE FROM dead WHERE id = ?1 AND queue = ?2 RETURNING id")?
            .query_row(
                params![i64::try_from(letter.place).unwrap_or(i64::MAX), queue],
                |row| row.get(0),
            )
            .optional()
    }
}

fn buried(found: &Row<'_>) -> rusqlite::Result<Buried> {
    let attempts = found.get(4)?;
    let record = Record {
        attempt: attempts,
        ..Record::default()
    };
    Ok(Buried {
        place: found.get::<_, i64>(0)?.unsigned_abs(),
        message: row::message(found, 9, record)?,
        cause: Some(DeadLetter {
            reason: found.get(1)?,
            code: found.get(2)?,
            error: found.get(3)?,
            attempts,
            plugin: found.get(5)?,
            digest: found.get(6)?,
            worker: found.get(7)?,
            at: row::from_millis(found.get(8)?),
        }),
    })
}
