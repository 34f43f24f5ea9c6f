//! [`Randomness`]: random bytes for a run, counted.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_core::{Rng, TryRng};

use super::breach::Breach;
use crate::outcome::Limit;

/// A generator that says so when the run has taken more than it may. What it gives is random all the
/// same: a guest is never handed anything else under that name.
pub(super) struct Randomness {
    generator: Box<dyn Rng + Send>,
    left: Arc<AtomicU64>,
    breach: Breach,
}

impl Randomness {
    /// The generators for a run's secure and insecure randomness, which share what it may take.
    pub(super) fn pair(limit: u64, breach: &Breach) -> [Randomness; 2] {
        let left = Arc::new(AtomicU64::new(limit));
        [(); 2].map(|()| Randomness {
            generator: wasmtime_wasi::thread_rng(),
            left: Arc::clone(&left),
            breach: breach.clone(),
        })
    }

    fn take(&self, bytes: u64) {
        let before = self.left.load(Ordering::Relaxed);
        // One guest, which is in one call at a time.
        self.left
            .store(before.saturating_sub(bytes), Ordering::Relaxed);
        if before < bytes {
            self.breach.report(Limit::Random);
        }
    }
}

impl TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // No import gives 32 bits: each byte of a list is drawn by itself, in this way.
        self.take(1);
        Ok(self.generator.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.take(8);
        Ok(self.generator.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.take(bytes.len() as u64);
        self.generator.fill_bytes(bytes);
        Ok(())
    }
}
