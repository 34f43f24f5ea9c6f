//! [`Breach`]: where host calls say that a run has passed a limit, so that it is ended.

use std::sync::{Arc, OnceLock};

use crate::outcome::Limit;

/// The first limit that a host call found passed in one run. Clones share it. The run ends once the
/// guest is back from its slice, a few thousandths of a second at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Breach(Arc<OnceLock<Limit>>);

impl Breach {
    /// The run has passed this limit. Only the first one counts.
    pub(super) fn report(&self, limit: Limit) {
        let _ = self.0.set(limit);
    }

    /// The limit that was passed, if any was.
    pub(super) fn limit(&self) -> Option<Limit> {
        self.0.get().copied()
    }
}
