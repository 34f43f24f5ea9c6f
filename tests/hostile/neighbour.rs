//! A neighbour: one task after another, in the same sandbox or on the same queue, and how long each took.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use scutwork::outcome::Outcome;
use scutwork::plugin::embedded;
use scutwork::sandbox::{Job, Limits, Prepared, Sandbox};

use crate::sandbox::{run, task};

/// Between two tasks, so that the neighbour is no attacker itself.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Neighbour {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    took: Mutex<Latencies>,
    one_more: Condvar,
    failed: Mutex<Vec<String>>,
}

/// How long tasks took.
#[derive(Default)]
pub(super) struct Latencies(Vec<Duration>);

/// How long tasks took beside others, and beside which of them the slowest one.
#[derive(Default)]
pub(super) struct Beside {
    all: Latencies,
    slowest: Duration,
    beside: String,
}

impl Beside {
    pub(super) fn add(&mut self, name: &str, mut more: Latencies) {
        let slowest = more.quantile(1.0);
        if slowest > self.slowest {
            self.slowest = slowest;
            self.beside = name.to_owned();
        }
        self.all.0.append(&mut more.0);
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Beside {
            all,
            slowest,
            beside,
        } = self;
        write!(f, "{all}, the slowest of all {slowest:?} beside {beside}")
    }
}

impl Latencies {
    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        sorted.get(at).copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:?}, p99 {:?} of {}",
            self.quantile(0.5),
            self.quantile(0.99),
            self.0.len()
        )
    }
}

pub(super) fn echo(sandbox: &Sandbox) -> Prepared {
    sandbox.prepare(embedded::echo()).unwrap()
}

/// A task of the neighbour's in a sandbox, with nothing between.
pub(super) fn in_sandbox(sandbox: Arc<Sandbox>) -> impl FnMut() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let prepared = echo(&sandbox);
    let task = task("echo", "hello");
    let grants = Arc::default();
    move || {
        let job = Job {
            prepared: &prepared,
            task: &task,
            limits: Limits::default(),
            grants: &grants,
            max_attempts: 1,
        };
        match runtime.block_on(run(&sandbox, job)).outcome {
            Outcome::Done(output) if output.body == "hello" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

impl Neighbour {
    /// Does one task after another, by what does one and tells whether it ended as it should.
    pub(super) fn start(one: impl FnMut() -> Result<(), String> + Send + 'static) -> Neighbour {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || seen.live(one));
        Neighbour { shared, thread }
    }

    /// How long tasks took since the last look.
    pub(super) fn taken(&self) -> Latencies {
        std::mem::take(&mut *self.shared.took.lock().unwrap())
    }

    /// How long its next tasks take.
    pub(super) fn next(&self, count: usize) -> Latencies {
        self.taken();
        let took = self.shared.took.lock().unwrap();
        let enough = self
            .shared
            .one_more
            .wait_while(took, |took| took.0.len() < count);
        std::mem::take(&mut *enough.unwrap())
    }

    /// Ends it, and tells of those of its tasks that did not end as they should.
    pub(super) fn stop(self) -> Vec<String> {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.shared.failed.lock().unwrap())
    }
}

impl Shared {
    fn live(&self, mut one: impl FnMut() -> Result<(), String>) {
        while !self.ends.load(Ordering::Relaxed) {
            let began = Instant::now();
            let ended = one();
            self.took.lock().unwrap().0.push(began.elapsed());
            self.one_more.notify_all();
            self.failed.lock().unwrap().extend(ended.err());
            std::thread::sleep(PAUSE);
        }
    }
}
