//! [`Places`]: what an attempt holds while it runs among others, and how it comes to that, or does not.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Shared;
use super::ahead::Held;
use crate::name::PluginName;
use crate::semaphore::{Permits, Semaphore};

/// How long a task waits at the gate of a plugin that is full, and then how long it is away. While it
/// waits, it is unsettled: it keeps others from being delivered, and the broker does not let it for ever.
const AT_GATE: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(2);

/// Who runs beside an attempt.
pub(super) enum Company {
    /// Others; it takes its place among them. None: it may wait for that as long as it takes.
    Others(Option<Held>),
    /// Nobody, to which whoever starts it has seen.
    Nobody,
}

impl Company {
    pub(super) fn is_others(&self) -> bool {
        match self {
            Company::Others(_) => true,
            Company::Nobody => false,
        }
    }

    /// [`Held::goes_back`], of what is held ahead. Cancel safe.
    pub(super) async fn goes_back(&mut self) {
        match self {
            Company::Others(Some(held)) => held.goes_back().await,
            Company::Others(None) | Company::Nobody => std::future::pending().await,
        }
    }

    /// The run came to its end.
    pub(super) fn end(self) {
        if let Company::Others(Some(held)) = self {
            held.end();
        }
    }
}

/// One gate for each plugin whose manifest bounds how many of its tasks run at once, with the bound that it was made
/// for.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<PluginName, (NonZeroU32, Arc<Semaphore>)>>);

impl Gates {
    /// The gate of a plugin whose tasks may not run more than `bound` at once.
    fn of(&self, plugin: &PluginName, bound: NonZeroU32) -> Arc<Semaphore> {
        let semaphore = |bound: NonZeroU32| Arc::new(Semaphore::new(bound.get() as usize));
        // The map is whole whatever a thread that panicked was doing to it.
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = gates
            .entry(plugin.clone())
            .and_modify(|(made_for, gate)| {
                if *made_for != bound {
                    (*made_for, *gate) = (bound, semaphore(bound));
                }
            })
            .or_insert_with(|| (bound, semaphore(bound)));
        entry.1.clone()
    }
}

/// Why a task did not get its turn here.
pub(super) enum NoTurn {
    /// Its plugin ran as many tasks as it may, all the time that it waited.
    Full,
    /// It came ahead of its time, and then the tasks before it turned out to be long.
    Ahead,
}

impl NoTurn {
    /// How long it is to be away.
    pub(super) fn away(&self) -> Duration {
        match self {
            NoTurn::Full => AWAY,
            NoTurn::Ahead => Duration::ZERO,
        }
    }
}

/// What an attempt holds while it runs among others.
pub(super) struct Places<'a> {
    _gate: Option<Permits<Arc<Semaphore>>>,
    _slot: Permits<&'a Semaphore>,
}

/// A place at the plugin's own gate, if it has one, and then a slot: in that order, so that tasks of
/// a plugin that is full keep no slot from others. None for whoever runs alone.
pub(super) async fn wait_for_places<'a>(
    shared: &'a Shared,
    plugin: &PluginName,
    is_among_others: bool,
) -> Result<Option<Places<'a>>, NoTurn> {
    let plugin_now = shared.registry.get_or_await(plugin).await;
    if !is_among_others {
        return Ok(None);
    }
    let bound = plugin_now.and_then(|plugin| plugin.manifest.concurrency);
    let gate = match bound {
        None => None,
        Some(bound) => {
            let entered = Semaphore::acquire(shared.gates.of(plugin, bound));
            let entered = tokio::time::timeout(AT_GATE, entered).await;
            Some(entered.map_err(|_| NoTurn::Full)?)
        }
    };
    Ok(Some(Places {
        _gate: gate,
        _slot: Semaphore::acquire(&shared.slots).await,
    }))
}
