//! What the queue does with messages on trial: they wait among the others and are claimed apart.

use rusqlite::params;

use super::{Claim, Store};

impl Store<'_> {
    /// Whether a suspect is due, on a queue that is not paused.
    pub(in crate::broker::sqlite) fn has_suspects(&self, queue: &str) -> rusqlite::Result<bool> {
        let Some(queue) = self.find_queue(queue)? else {
            return Ok(false);
        };
        Ok(!self.is_paused(queue)?
            && self
                .connection
                .prepare_cached(
                    "SELECT 1 FROM waiting WHERE queue = ?1 AND on_trial AND due <= ?2 LIMIT 1",
                )?
                .exists(params![queue, self.now])?)
    }

    /// Takes the suspect that has been due longest. Writes nothing when there is none.
    pub(in crate::broker::sqlite) fn claim_suspect(&self, queue: &str) -> rusqlite::Result<Claim> {
        let mut claim = Claim {
            taken: Vec::new(),
            next_due: None,
            is_paused: false,
        };
        let Some(queue) = self.find_queue(queue)? else {
            return Ok(claim);
        };
        claim.is_paused = self.is_paused(queue)?;
        if !claim.is_paused {
            self.claim_where(
                queue,
                "w.on_trial AND w.due <= ?2 ORDER BY w.due, w.id LIMIT 1",
                params![queue, self.now],
                &mut claim.taken,
            )?;
        }
        Ok(claim)
    }
}
