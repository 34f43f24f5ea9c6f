//! [`Runs`]: what this worker runs now, and how those runs ended of which the broker could not be told, so
//! that what it delivers again is not run again here.
//!
//! All of it is bounded and none of it outlives the process: what is forgotten is run again, which is all
//! that anybody was promised.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::broker::Message;
use crate::name::QueueName;
use crate::settlement::Settlement;

/// How many endings are kept.
const MOST: usize = 10_000;

/// How much they may hold together, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// For how long one is kept: a broker that is back later than this gets the work twice.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// Into how many parts the record is split, by key: far more than there are threads that would meet at one.
const PARTS: usize = 64;

/// What one attempt at a task is known by when it is delivered again: its queue, its number, and its id.
/// Without an id, which a producer need not give, it is everything in the message; then messages that are
/// the same in everything may stand for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    hash: [u64; 2],
    has_id: bool,
}

/// How a run ended of which the broker could not be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ending {
    /// What it was to be told.
    pub(super) settlement: Arc<Settlement>,
    /// What that publishes is confirmed, so that only the original is left to go. Its ack may have arrived
    /// all the same.
    pub(super) is_published: bool,
}

/// What is known of a delivery.
pub(super) enum Past {
    /// Nothing; it is to be run.
    Unknown,
    /// It runs here. The channel closes when that ends.
    Running(watch::Receiver<()>),
    /// It has run here. Whoever learns this has the task to settle: to others it runs until that is done.
    Ended(Box<Ending>, Begun),
}

/// The runs of one worker.
pub(super) struct Runs {
    hashers: [RandomState; 2],
    parts: [Mutex<Part>; PARTS],
    /// Every ending in the order in which they came, also those that are gone. Whoever locks a part too locks this
    /// first; a task whose broker was told locks it never.
    order: Mutex<VecDeque<(Key, Instant)>>,
    /// What the endings of all parts hold.
    bytes: AtomicUsize,
}

/// What is known of some keys. Each has cache lines of its own, as x86 fetches them, in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Part {
    running: HashMap<Key, Running>,
    endings: HashMap<Key, (Box<Ending>, Instant)>,
}

/// Usually one run; a producer may give an id twice.
#[derive(Default)]
struct Running {
    runs: usize,
    ended: Option<watch::Sender<()>>,
}

/// A run that goes on until this is dropped.
pub(super) struct Begun {
    runs: Arc<Runs>,
    key: Key,
    /// Boxed, because every run has the place for one and hardly any has one.
    ending: Option<Box<Ending>>,
}

impl Runs {
    /// The key of a message as it was delivered, before it was given an id.
    pub(super) fn key(&self, queue: &QueueName, message: &Message) -> Key {
        let attempt = message.record.attempt;
        let hash = |hasher: &RandomState| match &message.id {
            Some(id) => hasher.hash_one((queue.as_str(), attempt, id)),
            None => {
                let reply_to = message.reply_to.as_ref();
                hasher.hash_one((
                    (queue.as_str(), attempt, &message.plugin),
                    (&message.content_type, &message.headers, &message.body),
                    reply_to.map(|reply_to| (&reply_to.address, &reply_to.correlation_id)),
                ))
            }
        };
        Key {
            hash: [hash(&self.hashers[0]), hash(&self.hashers[1])],
            has_id: message.id.is_some(),
        }
    }

    /// Marks a run as going on. How an earlier one of the same key ended is of no more use.
    pub(super) fn begin(self: &Arc<Self>, key: Key) -> Begun {
        let mut part = self.part(key);
        self.forget(&mut part, key);
        self.run(&mut part, key)
    }

    fn run(self: &Arc<Self>, part: &mut Part, key: Key) -> Begun {
        part.running.entry(key).or_default().runs += 1;
        Begun {
            runs: self.clone(),
            key,
            ending: None,
        }
    }

    /// What is known of a delivery that came again; an ending is taken out.
    pub(super) fn recall(self: &Arc<Self>, key: Key) -> Past {
        let mut part = self.part(key);
        if let Some(ending) = self.forget(&mut part, key) {
            return Past::Ended(ending, self.run(&mut part, key));
        }
        match part.running.get_mut(&key) {
            Some(running) => {
                let ended = running.ended.get_or_insert_default();
                Past::Running(ended.subscribe())
            }
            None => Past::Unknown,
        }
    }

    /// How many runs go on or are being settled.
    pub(super) fn count(&self) -> usize {
        let in_part = |part| {
            let part = lock::<Part>(part);
            part.running
                .values()
                .map(|running| running.runs)
                .sum::<usize>()
        };
        self.parts.iter().map(in_part).sum()
    }

    /// Whether [`Runs::recall`] would say anything.
    pub(super) fn knows(&self, key: Key) -> bool {
        let part = self.part(key);
        part.running.contains_key(&key) || part.endings.contains_key(&key)
    }

    fn part(&self, key: Key) -> MutexGuard<'_, Part> {
        // The hash has no pattern, so that any of its bits will do.
        lock(&self.parts[key.hash[0] as usize % PARTS])
    }

    fn forget(&self, part: &mut Part, key: Key) -> Option<Box<Ending>> {
        if part.endings.is_empty() {
            return None;
        }
        let (ending, _) = part.endings.remove(&key)?;
        self.bytes.fetch_sub(size(&ending), Ordering::Relaxed);
        Some(ending)
    }

    fn keep(&self, key: Key, ending: Box<Ending>, now: Instant) {
        if ending.is_published && !key.has_id {
            return;
        }
        let mut order = lock(&self.order);
        {
            let mut part = self.part(key);
            self.forget(&mut part, key);
            self.bytes.fetch_add(size(&ending), Ordering::Relaxed);
            part.endings.insert(key, (ending, now));
        }
        order.push_back((key, now));
        while let Some(&(oldest, at)) = order.front()
            && (order.len() > MOST
                || self.bytes.load(Ordering::Relaxed) > MOST_BYTES
                || now.duration_since(at) > KEPT_FOR)
        {
            order.pop_front();
            let mut part = self.part(oldest);
            let is_it = |(_, kept): &(Box<Ending>, Instant)| *kept == at;
            if part.endings.get(&oldest).is_some_and(is_it) {
                self.forget(&mut part, oldest);
            }
        }
    }
}

impl Default for Runs {
    fn default() -> Self {
        Runs {
            hashers: Default::default(),
            parts: std::array::from_fn(|_| Mutex::default()),
            order: Mutex::default(),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Begun {
    /// Ends the run, and keeps how it ended for when its message comes again. Not without an id if the ack
    /// may have arrived: then a message that is the same, and has not been run, would go in its place.
    pub(super) fn end_with(mut self, ending: Ending) {
        self.ending = Some(Box::new(ending));
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(ending) = self.ending.take() {
            self.runs.keep(self.key, ending, Instant::now());
        }
        let mut part = self.runs.part(self.key);
        if let Some(running) = part.running.get_mut(&self.key) {
            running.runs -= 1;
            // Who waits looks again, and finds the ending.
            running.ended = None;
            if running.runs == 0 {
                part.running.remove(&self.key);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the record whole, whatever panics beside it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// About what an ending takes up beside its place in the book. A dead letter says the same twice.
fn size(ending: &Ending) -> usize {
    let reply = ending.settlement.reply();
    reply.map_or(0, |reply| 2 * reply.body.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Record;
    use crate::settlement::{Reply, ReplyKind};

    fn ending(bytes: usize) -> Ending {
        Ending {
            settlement: Arc::new(Settlement::Done {
                reply: Reply {
                    kind: ReplyKind::Done,
                    task: "t".into(),
                    attempt: 1,
                    content_type: None,
                    body: vec![0; bytes].into(),
                },
            }),
            is_published: false,
        }
    }

    fn message(id: Option<&str>, attempt: u32) -> Message {
        Message {
            id: id.map(str::to_owned),
            body: "same".into(),
            record: Record {
                attempt,
                ..Record::default()
            },
            ..Message::default()
        }
    }

    fn key(runs: &Runs, message: &Message) -> Key {
        runs.key(&"work".parse().unwrap(), message)
    }

    #[test]
    fn an_ending_is_found_once_and_by_its_own_attempt_alone() {
        let runs = Arc::new(Runs::default());
        let first = key(&runs, &message(Some("a"), 1));
        runs.begin(first).end_with(ending(1));
        for other in [
            message(Some("a"), 2),
            message(Some("b"), 1),
            message(None, 1),
        ] {
            assert!(matches!(runs.recall(key(&runs, &other)), Past::Unknown));
        }
        assert!(runs.knows(first));
        let Past::Ended(found, settling) = runs.recall(first) else {
            panic!("it has ended");
        };
        assert_eq!(*found, ending(1));
        assert!(matches!(runs.recall(first), Past::Running(_)));
        drop(settling);
        assert!(matches!(runs.recall(first), Past::Unknown));
    }

    #[test]
    fn a_run_that_begins_anew_makes_the_ending_before_it_void() {
        let runs = Arc::new(Runs::default());
        let key = key(&runs, &message(Some("a"), 1));
        runs.begin(key).end_with(ending(1));
        drop(runs.begin(key));
        assert!(matches!(runs.recall(key), Past::Unknown));
    }

    #[tokio::test]
    async fn whoever_waits_for_a_run_hears_of_its_end_and_finds_how() {
        let runs = Arc::new(Runs::default());
        let key = key(&runs, &message(None, 1));
        let begun = runs.begin(key);
        let Past::Running(mut ended) = runs.recall(key) else {
            panic!("it runs");
        };
        begun.end_with(ending(1));
        assert!(ended.changed().await.is_err());
        assert!(matches!(runs.recall(key), Past::Ended(..)));
    }

    #[test]
    fn without_an_id_nothing_is_kept_whose_ack_may_have_arrived() {
        let runs = Arc::new(Runs::default());
        let published = Ending {
            is_published: true,
            ..ending(1)
        };
        for (id, is_kept) in [(Some("a"), true), (None, false)] {
            let key = key(&runs, &message(id, 1));
            runs.begin(key).end_with(published.clone());
            assert_eq!(runs.knows(key), is_kept);
        }
    }

    #[test]
    fn endings_are_bounded_in_count_bytes_and_time() {
        let runs = Runs::default();
        let numbered = |number: usize| key(&runs, &message(Some(&number.to_string()), 1));
        let kept = || {
            let endings = runs.parts.iter().map(|part| lock(part).endings.len());
            (endings.sum::<usize>(), runs.bytes.load(Ordering::Relaxed))
        };
        let now = Instant::now();
        for number in 0..=MOST {
            runs.keep(numbered(number), Box::new(ending(1)), now);
        }
        assert_eq!(kept(), (MOST, 2 * MOST));
        assert!(!runs.knows(numbered(0)));
        runs.keep(numbered(0), Box::new(ending(MOST_BYTES / 2)), now);
        assert_eq!(kept(), (1, MOST_BYTES));
        runs.keep(numbered(1), Box::new(ending(0)), now + 2 * KEPT_FOR);
        assert_eq!(kept(), (1, 0));
        assert!(runs.knows(numbered(1)));
    }

    #[test]
    fn many_threads_leave_nothing_behind() {
        let runs = Arc::new(Runs::default());
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let runs = runs.clone();
                scope.spawn(move || {
                    for number in 0..2000_u32 {
                        // Of three threads each, and of one attempt after the other.
                        let shared = message(Some("shared"), (number + thread) % 7 + 1);
                        let begun = runs.begin(key(&runs, &shared));
                        if number % 3 == 0 {
                            begun.end_with(ending(1));
                        }
                        if let Past::Ended(_, settling) = runs.recall(key(&runs, &shared)) {
                            settling.end_with(ending(2));
                        }
                    }
                });
            }
        });
        assert_eq!(runs.count(), 0);
        let endings = (1..=7).filter(|attempt| {
            let past = runs.recall(key(&runs, &message(Some("shared"), *attempt)));
            matches!(past, Past::Ended(..))
        });
        assert!(endings.count() > 0);
        assert_eq!((runs.bytes.load(Ordering::Relaxed), runs.count()), (0, 0));
    }
}
