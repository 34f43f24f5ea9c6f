//! [`Loops`]: the spawned loops of one broker, owned until they have ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the loops may take to close their connections.
const CLOSE: Duration = Duration::from_secs(5);

/// Handles of loops. Cheap to clone; the clones share them.
#[derive(Clone, Default)]
pub(super) struct Loops(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Loops {
    /// Owns one more, and forgets those that have ended.
    pub(super) fn own(&self, handle: JoinHandle<()>) {
        let mut loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|handle| !handle.is_finished());
        loops.push(handle);
    }

    /// Waits for all of them, which were told to end, and aborts those that take too long.
    pub(super) async fn end(&self) {
        let loops = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for mut handle in loops {
            if timeout(CLOSE, &mut handle).await.is_err() {
                handle.abort();
                // Until it has ended, holds of its deliveries would still look alive.
                let _ = handle.await;
            }
        }
    }
}
