//! [`Memory`]: what one run's memories and tables hold together, kept under the limit.

use wasmtime::ResourceLimiter;

use super::engine::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES, TABLE_ELEMENTS};
use crate::outcome::Limit;

/// What a table holds for each element: a pointer.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// The sum over all linear memories and tables of one store, in bytes. A growth past the limit fails
/// as the guest's own instruction does when memory is short, and is remembered.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    held: usize,
    peak: usize,
    refused: Option<Limit>,
}

impl Memory {
    /// Nothing held yet.
    pub(super) fn new(limit: u64) -> Memory {
        Memory {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            held: 0,
            peak: 0,
            refused: None,
        }
    }

    /// The most that was held at once, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak as u64
    }

    /// Of what the guest asked for more than it may have, the last time that it did.
    pub(super) fn refused(&self) -> Option<Limit> {
        self.refused
    }

    fn grow(&mut self, more: usize) -> bool {
        match self.held.checked_add(more) {
            Some(sum) if sum <= self.limit => {
                self.held = sum;
                self.peak = self.peak.max(sum);
                true
            }
            _ => {
                self.refused = Some(Limit::Memory);
                false
            }
        }
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Past its own maximum the growth fails whatever is said here, and that is no limit of ours.
        if maximum.is_some_and(|maximum| desired > maximum && desired <= self.limit) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Its own maximum, or the pool's place for a table, whose size is that of the limit.
        if maximum.is_some_and(|maximum| desired > maximum && maximum < TABLE_ELEMENTS) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS {
            self.refused = Some(Limit::Table);
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        Ok(self.grow(more.saturating_mul(TABLE_ELEMENT)))
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let mut memory = Memory::new(100_000);
        assert!(memory.memory_growing(0, 65_536, None).unwrap());
        assert!(memory.table_growing(0, 4_000, None).unwrap());
        assert_eq!(memory.refused(), None);
        assert!(!memory.memory_growing(0, 65_536, None).unwrap());
        assert_eq!(memory.refused(), Some(Limit::Memory));
        assert_eq!(memory.peak(), 65_536 + 32_000);
    }

    #[test]
    fn a_growth_past_the_guests_own_maximum_is_not_held_against_the_limit() {
        let mut memory = Memory::new(1 << 20);
        assert!(!memory.memory_growing(0, 131_072, Some(65_536)).unwrap());
        assert_eq!(memory.refused(), None);
        assert_eq!(memory.peak(), 0);
    }

    #[test]
    fn a_table_grows_to_its_limit_with_a_pool_and_without() {
        for maximum in [None, Some(TABLE_ELEMENTS), Some(usize::MAX)] {
            let mut memory = Memory::new(1 << 30);
            assert!(memory.table_growing(0, TABLE_ELEMENTS, maximum).unwrap());
            assert_eq!(memory.refused(), None);
            let beyond = TABLE_ELEMENTS + 1;
            assert!(
                !memory
                    .table_growing(TABLE_ELEMENTS, beyond, maximum)
                    .unwrap()
            );
            assert_eq!(memory.refused(), Some(Limit::Table));
        }
        let mut memory = Memory::new(1 << 30);
        assert!(!memory.table_growing(0, 1 << 20, Some(10)).unwrap());
        assert_eq!(memory.refused(), None);
    }
}
