//! [`Event`]: what happens in a worker, and the only thing that its observers see.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::Notice;
use crate::name::{PluginName, QueueName};
use crate::outcome::{Outcome, Usage};
use crate::settlement::Settlement;

/// Something that happened. Borrowed from where it happened: an observer copies what it keeps.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The broker has something to say.
    Broker(&'a Notice),
    /// The set of plugins changed, or refused to.
    Plugin(&'a PluginEvent),
    /// An attempt begins.
    Started {
        /// Which.
        run: Run<'a>,
        /// The queue that it came from.
        queue: &'a QueueName,
    },
    /// The guest says how far it is.
    Progress {
        /// Which.
        run: Run<'a>,
        /// Units done.
        done: u32,
        /// Units in all.
        total: u32,
        /// What it is doing.
        message: &'a str,
    },
    /// The guest wrote a line, by `log` or on stderr.
    Line {
        /// Which.
        run: Run<'a>,
        /// How much it matters.
        level: Level,
        /// The line.
        message: &'a str,
        /// Names and values beside it.
        fields: &'a [(String, String)],
    },
    /// An attempt ended.
    Finished {
        /// Which.
        run: Run<'a>,
        /// What it meant.
        outcome: &'a Outcome,
        /// What it cost.
        usage: Usage,
    },
    /// The broker knows what becomes of the task.
    Settled {
        /// Which. Its plugin is the message's word for it: what it names may not exist.
        run: Run<'a>,
        /// What the broker was told.
        settlement: &'a Settlement,
        /// What the attempt cost; none where nothing ran.
        usage: Option<Usage>,
        /// How long the broker took.
        took: Duration,
    },
    /// The broker could not be told; it delivers the message again.
    NotSettled {
        /// Which.
        run: Run<'a>,
        /// Why.
        error: &'a str,
    },
    /// The broker delivered what this worker runs or has run, and it is not run again.
    Repeated {
        /// Which.
        run: Run<'a>,
        /// How far it is.
        repeat: Repeat,
    },
    /// The worker has seen how long tasks take, and holds another number of deliveries from now on.
    Prefetch {
        /// Of which queue.
        queue: &'a QueueName,
        /// How many may be unsettled at once.
        prefetch: u16,
    },
    /// The worker takes no more tasks.
    Draining {
        /// How many tasks still run.
        running: usize,
        /// How long they have.
        grace: Duration,
    },
}

/// Which attempt an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The task's id.
    pub task: &'a str,
    /// Its plugin.
    pub plugin: &'a str,
    /// From 1.
    pub attempt: u32,
}

/// How far a task is that was delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It still runs: the delivery waits, and is settled by how that ends.
    Running,
    /// It has run, and the broker could not be told: the delivery is settled by how that ended.
    Ended,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The finest grain.
    Trace,
    /// For debugging.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// A change in the set of plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginEvent {
    /// A plugin serves from now on.
    Added {
        /// Its name.
        name: PluginName,
        /// Its sha256 in hex.
        digest: String,
        /// How long compiling took.
        compiled_in: Duration,
    },
    /// A new version serves from now on; runs of the old one go on with it.
    Replaced {
        /// Its name.
        name: PluginName,
        /// The new version's sha256 in hex.
        digest: String,
        /// How long compiling took.
        compiled_in: Duration,
    },
    /// A plugin serves no longer.
    Removed {
        /// Its name.
        name: PluginName,
    },
    /// Something is odd, and is done all the same.
    Warned {
        /// The file or directory, as a person would name it.
        file: String,
        /// What, and what comes of it.
        warning: String,
    },
    /// A file does not become a plugin. What served before goes on serving.
    Refused {
        /// The file, as a person would name it.
        file: String,
        /// Why, and what to do.
        reason: String,
        /// An older version of it goes on serving.
        still_serving: bool,
    },
}

/// Watches events. It is called from the threads where they happen, guests' threads among them, so
/// it must not block.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// Every observer of a worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Observers(Arc<[Box<dyn Observer>]>);

impl Observers {
    /// These and no others, for good.
    pub fn new(observers: Vec<Box<dyn Observer>>) -> Self {
        Observers(observers.into())
    }

    /// Tells each of them.
    pub fn tell(&self, event: &Event<'_>) {
        for observer in self.0.iter() {
            observer.observe(event);
        }
    }
}
