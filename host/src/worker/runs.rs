//! [`Runs`]: what this worker runs now, and how those runs ended of which the broker could not be told, so
//! that what it delivers again is not run again here.
//!
//! All of it is bounded and none of it outlives the process: what is forgotten is run again, which is all
//! that anybody was promised.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
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
#[derive(Default)]
pub(super) struct Runs {
    hashers: [RandomState; 2],
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    running: HashMap<Key, Running>,
    endings: HashMap<Key, (Box<Ending>, Instant)>,
    /// Every ending in the order in which they came, also those that are gone.
    order: VecDeque<(Key, Instant)>,
    bytes: usize,
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
        let mut book = self.book();
        book.forget(key);
        self.run(&mut book, key)
    }

    fn run(self: &Arc<Self>, book: &mut Book, key: Key) -> Begun {
        book.running.entry(key).or_default().runs += 1;
        Begun {
            runs: self.clone(),
            key,
            ending: None,
        }
    }

    /// What is known of a delivery that came again; an ending is taken out.
    pub(super) fn recall(self: &Arc<Self>, key: Key) -> Past {
        let mut book = self.book();
        if let Some(ending) = book.forget(key) {
            return Past::Ended(ending, self.run(&mut book, key));
        }
        match book.running.get_mut(&key) {
            Some(running) => {
                let ended = running.ended.get_or_insert_default();
                Past::Running(ended.subscribe())
            }
            None => Past::Unknown,
        }
    }

    /// How many runs go on or are being settled.
    pub(super) fn count(&self) -> usize {
        let book = self.book();
        book.running.values().map(|running| running.runs).sum()
    }

    /// Whether [`Runs::recall`] would say anything.
    pub(super) fn knows(&self, key: Key) -> bool {
        let book = self.book();
        book.running.contains_key(&key) || book.endings.contains_key(&key)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change of the book leaves it whole, whatever panics beside it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut book = self.runs.book();
        if let Some(ending) = self.ending.take() {
            book.keep(self.key, ending, Instant::now());
        }
        if let Some(running) = book.running.get_mut(&self.key) {
            running.runs -= 1;
            // Who waits looks again, and finds the ending.
            running.ended = None;
            if running.runs == 0 {
                book.running.remove(&self.key);
            }
        }
    }
}

impl Book {
    fn forget(&mut self, key: Key) -> Option<Box<Ending>> {
        if self.endings.is_empty() {
            return None;
        }
        let (ending, _) = self.endings.remove(&key)?;
        self.bytes -= size(&ending);
        Some(ending)
    }

    fn keep(&mut self, key: Key, ending: Box<Ending>, now: Instant) {
        if ending.is_published && !key.has_id {
            return;
        }
        self.forget(key);
        self.bytes += size(&ending);
        self.endings.insert(key, (ending, now));
        self.order.push_back((key, now));
        while let Some(&(oldest, at)) = self.order.front()
            && (self.order.len() > MOST
                || self.bytes > MOST_BYTES
                || now.duration_since(at) > KEPT_FOR)
        {
            self.order.pop_front();
            let is_it = |(_, kept): &(Box<Ending>, Instant)| *kept == at;
            if self.endings.get(&oldest).is_some_and(is_it) {
                self.forget(oldest);
            }
        }
    }
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
        let mut book = Book::default();
        let runs = Arc::new(Runs::default());
        let numbered = |number: usize| key(&runs, &message(Some(&number.to_string()), 1));
        let now = Instant::now();
        for number in 0..=MOST {
            book.keep(numbered(number), Box::new(ending(1)), now);
        }
        assert_eq!(book.endings.len(), MOST);
        assert!(!book.endings.contains_key(&numbered(0)));
        book.keep(numbered(0), Box::new(ending(MOST_BYTES / 2)), now);
        assert_eq!((book.endings.len(), book.bytes), (1, MOST_BYTES));
        book.keep(numbered(1), Box::new(ending(0)), now + 2 * KEPT_FOR);
        assert_eq!((book.endings.len(), book.bytes), (1, 0));
        assert!(book.endings.contains_key(&numbered(1)));
    }
}
