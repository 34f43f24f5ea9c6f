//! Chaos: workers and brokers, or the nodes of one, are killed again and again while tasks run, and at the end every task is
//! accounted for: done, or dead with its cause.

mod books;
mod store;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use scutwork::broker::{Message, Record};
use scutwork::task::new_id;

use self::books::Books;
use self::store::{Store, queue};
use crate::support::program::{PATIENCE, Place, Running};
use crate::support::rabbitmq::{Cluster, Node};

/// How many tasks there are, unless `SCUTWORK_CHAOS` says otherwise.
const TASKS: usize = 2000;

/// The same for a cluster, whose nodes take a while to come back.
const CLUSTER_TASKS: usize = 600;

/// How many tasks lie between one kill and the next.
const BETWEEN_KILLS: usize = 200;

/// How many tasks are confirmed at a time.
const BATCH: usize = 50;

const WORKERS: usize = 2;

/// What becomes of a task if nobody dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// `echo`
    Done,
    /// `flaky`, at its second attempt
    DoneAfterRetry,
    /// `picky`
    Dead,
}

impl Fate {
    fn of(number: usize) -> Fate {
        match number % 10 {
            0 => Fate::Dead,
            1 | 2 => Fate::DoneAfterRetry,
            _ => Fate::Done,
        }
    }

    fn message(self, id: String) -> Message {
        let (plugin, body) = match self {
            Fate::Done => ("echo", "x"),
            Fate::DoneAfterRetry => ("flaky", "2 250"),
            Fate::Dead => ("picky", "no"),
        };
        Message {
            plugin: Some(plugin.to_owned()),
            id: Some(id),
            body: body.into(),
            record: Record::default(),
            ..Message::default()
        }
    }
}

/// Workers that are killed and replaced, and what they said.
struct Crew {
    place: Place,
    broker: String,
    workers: Vec<Running>,
    /// How often each attempt of a task was started.
    runs: BTreeMap<(String, u64), u32>,
    /// Every line of those that ended.
    said: Vec<String>,
}

impl Crew {
    fn start(broker: String) -> Crew {
        let place = Place::new();
        place
            .plugin("echo", "")
            .plugin("flaky", "")
            .plugin("picky", "");
        let mut crew = Crew {
            place,
            broker,
            workers: Vec::new(),
            runs: BTreeMap::new(),
            said: Vec::new(),
        };
        for _ in 0..WORKERS {
            crew.hire();
        }
        crew
    }

    fn hire(&mut self) {
        let more = ["--slots", "16", "-o", "json"];
        let worker = self.place.worker(&self.broker, queue().as_str(), &more);
        self.workers.push(worker);
    }

    /// Kills the one that has worked longest, and hires another.
    fn kill(&mut self) {
        let mut worker = self.workers.remove(0);
        worker.kill();
        // What it said before its end comes until its pipe is empty.
        let (_, said) = worker.wait();
        self.note(said.lines());
        self.hire();
    }

    fn note<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        for line in lines {
            self.said.push(line.to_owned());
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            if line["message"] == "started" {
                let task = line["task"].as_str().unwrap().to_owned();
                let attempt = line["attempt"].as_u64().unwrap();
                *self.runs.entry((task, attempt)).or_default() += 1;
            }
        }
    }

    /// Kills them all, and gives what any of them ever said of these tasks or of replies that were given up.
    fn testify(&mut self, tasks: &[String]) -> String {
        for mut worker in std::mem::take(&mut self.workers) {
            worker.kill();
            let (_, said) = worker.wait();
            self.note(said.lines());
        }
        let is_told = |line: &&String| {
            line.contains("a reply found nobody") || tasks.iter().any(|task| line.contains(task))
        };
        let lines: Vec<&str> = self
            .said
            .iter()
            .filter(is_told)
            .map(String::as_str)
            .collect();
        lines.join("\n")
    }

    /// Lets all finish in order; gives how many runs were one too many.
    fn dismiss(&mut self) -> usize {
        for worker in std::mem::take(&mut self.workers) {
            worker.terminate();
            let (code, said) = worker.wait();
            assert_eq!(code, Some(0), "{said}");
            self.note(said.lines());
        }
        self.runs.values().filter(|&&runs| runs > 1).count()
    }
}

/// Puts tasks on the queue until `count` are confirmed. What was refused may be there all the same, so
/// nothing is owed for it; other tasks take its place.
async fn submit(store: &Store, books: &Books, count: usize) {
    let mut confirmed = 0;
    while confirmed < count {
        let tasks: Vec<_> = (confirmed..count.min(confirmed + BATCH))
            .map(|number| (new_id(), Fate::of(number)))
            .collect();
        if store.publish(&tasks).await {
            confirmed += tasks.len();
            books.owe(tasks);
        }
    }
}

/// Waits until more tasks than that ended. While none does, it tells what became of those that are owed.
async fn await_ends(books: &Books, count: usize, store: &Store, crew: &mut Crew) {
    if books.more_than(count).await {
        return;
    }
    let missing = books.missing();
    panic!(
        "only {} tasks ended; missing {missing:?}\n{}\n{}",
        books.ended(),
        store.inventory().await,
        crew.testify(&missing)
    );
}

/// Waits until every task that is owed has ended.
async fn balance(books: &Books, store: &Store, crew: &mut Crew) {
    loop {
        let ended = books.ended();
        if books.missing().is_empty() {
            return;
        }
        await_ends(books, ended, store, crew).await;
    }
}

/// The whole of it on one store, which is struck once in so many kills of workers.
async fn run(mut store: Store, tasks: usize, kills_per_strike: usize) {
    let began = Instant::now();
    let tasks = std::env::var("SCUTWORK_CHAOS").map_or(tasks, |tasks| {
        tasks.parse().expect("SCUTWORK_CHAOS is a number of tasks")
    });
    let books = Books::default();
    store.listen(&books).await;
    let mut crew = Crew::start(store.url());
    // One of each fate first: then every queue is there that the broker is killed with.
    submit(&store, &books, 10).await;
    balance(&books, &store, &mut crew).await;
    store.settle_down().await;
    let (mut kills, mut strikes) = (0, 0);
    while books.owed() < tasks {
        let ended = books.ended();
        let share = BETWEEN_KILLS.min(tasks - books.owed());
        let chaos = async {
            await_ends(&books, ended + share / 4, &store, &mut crew).await;
            crew.kill();
            kills += 1;
            if kills % kills_per_strike == 0 {
                strikes += store.strike().await;
            }
        };
        tokio::join!(submit(&store, &books, share), chaos);
    }
    balance(&books, &store, &mut crew).await;
    let patience = Instant::now() + PATIENCE;
    while !store.is_empty().await {
        assert!(
            Instant::now() < patience,
            "the queue does not become empty\n{}",
            store.inventory().await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let twice = crew.dismiss();
    let letters = store.letters().await;
    let count = books.check(&letters);
    if !store.is_empty().await {
        let waiting = store.waiting().await;
        panic!(
            "there is something left again, {waiting:?} on the queue\n{}\n{}",
            store.inventory().await,
            crew.testify(&waiting)
        );
    }
    // Past the test harness, which hides what passing tests print; nothing depends on anybody listening.
    let _ = writeln!(
        std::io::stderr(),
        "{}: {tasks} tasks: {count}; {twice} attempts were run more than once; {kills} workers and \
         {strikes} brokers ended, in {:.0?}",
        store.name(),
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_accounted_for_when_workers_are_killed_on_sqlite() {
    run(Store::file(), TASKS, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_accounted_for_when_workers_and_rabbitmq_are_killed() {
    let node = Node::start().await;
    run(Store::nodes(Cluster::of_one(node)).await, TASKS, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_accounted_for_when_workers_and_one_node_of_three_at_a_time_are_killed() {
    let cluster = Cluster::start(3).await;
    run(Store::nodes(cluster).await, CLUSTER_TASKS, 1).await;
}
