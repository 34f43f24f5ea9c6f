//! The same plugins through a whole worker and a queue, with a neighbour on it: each task of theirs is settled
//! as the run's verdict says, and each of the neighbour's is done.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, Message};
use scutwork::event::{Event, Observer, Observers};
use scutwork::name::QueueName;
use scutwork::plugin::registry::RegistrySettings;
use scutwork::plugin::{Registry, embedded};
use scutwork::settlement::Settlement;
use scutwork::task::new_id;
use scutwork::worker::prefetch::Prefetch;
use scutwork::worker::{StopSwitch, Worker, WorkerSettings};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::leftovers::Leftovers;
use super::neighbour::{Beside, Neighbour};
use super::{AT_LEAST, RUNS_ALONE, SLOTS, Verdict, alone, case, sandbox, server, start};
use crate::support::program::PATIENCE;
use crate::support::{shelf, worker};

#[test]
fn on_a_queue_every_hostile_task_is_settled_and_every_one_of_its_neighbours_is_done() {
    alone(corpus);
}

fn corpus() {
    let cases = case::all(server::start());
    let folder = case::folder();
    for case in &cases {
        case.write(folder.path());
    }
    std::fs::write(folder.path().join("echo.wasm"), embedded::echo()).unwrap();
    let house = House::open(&folder);

    let mut wrong = Vec::new();
    let refused = house.registry.refused();
    let mut runs = Vec::new();
    for case in &cases {
        let file = format!("/{}.wasm", case.name);
        match refused.iter().find(|refused| refused.file.ends_with(&file)) {
            Some(refused) => wrong.extend(case.compare("refused", &refused.reason).err()),
            None => runs.push(case),
        }
    }
    let neighbour = Neighbour::start(house.neighbours_tasks());
    let alone = neighbour.next(RUNS_ALONE);
    // What it costs to share a queue's file and its disk, though nobody attacks.
    let harmless = Neighbour::start(house.neighbours_tasks());
    let beside_another = neighbour.next(RUNS_ALONE);
    let mut failed = harmless.stop();
    let mut beside = Beside::default();
    let mut dead = 0;
    for case in &runs {
        let began = Instant::now();
        let verdict = loop {
            let verdict = house.run(&case.name, &case.payload);
            dead += u64::from(verdict.word != "done");
            if began.elapsed() > AT_LEAST {
                break verdict;
            }
        };
        beside.add(&case.name, neighbour.taken());
        wrong.extend(case.compare(&verdict.word, &verdict.said).err());
    }
    let after = neighbour.next(RUNS_ALONE);
    eprintln!(
        "{} hostile plugins on a queue. A neighbour's task, from publishing to its end: alone {alone}; beside \
         another's such tasks {beside_another}; beside them {beside}; afterwards {after}",
        runs.len(),
    );
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
    // Each plugin has run, and has the file that its memory begins as. What comes on top now is left over,
    // for the worker still works.
    let before = Leftovers::now();
    for case in &runs {
        dead += u64::from(house.run(&case.name, &case.payload).word != "done");
    }
    before.compare();
    failed.extend(neighbour.stop());
    assert!(
        failed.is_empty(),
        "the neighbour's tasks failed: {failed:?}"
    );
    house.close(dead);
}

/// A worker with its queue and its plugins.
struct House {
    runtime: Runtime,
    file: PathBuf,
    broker: Arc<dyn Broker>,
    registry: Arc<Registry>,
    ends: Ends,
    switch: StopSwitch,
    worker: JoinHandle<()>,
}

impl House {
    fn open(folder: &tempfile::TempDir) -> House {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let sandbox = Arc::new(sandbox());
        let ends = Ends::default();
        let observers = Observers::new(vec![Box::new(ends.clone())]);
        let settings = RegistrySettings {
            patience: Duration::MAX,
            ..shelf::settings(folder.path())
        };
        let registry = Registry::open(settings, Arc::clone(&sandbox), observers.clone());
        let registry = Arc::new(registry.unwrap());
        let file = folder.path().join("queue.db");
        let broker = open(&file);
        let (switch, stop) = StopSwitch::new();
        let settings = WorkerSettings {
            prefetch: Prefetch::Fixed(16),
            ..worker::settings(queue(), SLOTS)
        };
        let worker = Worker::new(
            settings,
            Arc::clone(&broker),
            Arc::clone(&registry),
            sandbox,
            observers,
            stop,
        );
        let worker = runtime.spawn(async move { worker.run().await.unwrap() });
        House {
            runtime,
            file,
            broker,
            registry,
            ends,
            switch,
            worker,
        }
    }

    /// Gives a plugin one task, and waits for what becomes of it.
    fn run(&self, plugin: &str, payload: &str) -> Verdict {
        let task = message(plugin, payload);
        let id = task.id.clone().unwrap();
        self.runtime
            .block_on(self.broker.publish(&queue(), vec![task], None))
            .unwrap();
        self.ends.wait(&id)
    }

    fn neighbours_tasks(&self) -> impl FnMut() -> Result<(), String> + use<> {
        let runtime = self.runtime.handle().clone();
        let broker = Arc::clone(&self.broker);
        let ends = self.ends.clone();
        move || {
            let task = message("echo", "hello");
            let id = task.id.clone().unwrap();
            runtime
                .block_on(broker.publish(&queue(), vec![task], None))
                .unwrap();
            let Verdict { word, said } = ends.wait(&id);
            match (word.as_str(), said.as_str()) {
                ("done", "hello") => Ok(()),
                _ => Err(format!("{word}: {said}")),
            }
        }
    }

    /// Stops the worker, which leaves nothing on the queue but so many dead letters.
    fn close(self, dead: u64) {
        self.switch.drain();
        self.runtime.block_on(self.worker).unwrap();
        // The worker has closed it.
        let broker = open(&self.file);
        let depth = self.runtime.block_on(broker.depth(&queue()));
        let depth = depth.unwrap().unwrap();
        assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, dead));
        assert_eq!(depth.running.unwrap_or(0), 0);
        self.runtime.block_on(broker.close());
    }
}

fn open(file: &Path) -> Arc<dyn Broker> {
    let notices = Arc::new(|notice| eprintln!("{notice:?}"));
    Arc::new(Sqlite::open(SqliteOptions::new(file), notices).unwrap())
}

fn queue() -> QueueName {
    "work".parse().unwrap()
}

fn message(plugin: &str, payload: &str) -> Message {
    Message {
        plugin: Some(plugin.to_owned()),
        id: Some(new_id()),
        body: payload.to_owned().into(),
        ..Message::default()
    }
}

/// What became of tasks, until somebody asks for it.
#[derive(Clone, Default)]
struct Ends(Arc<Seen>);

#[derive(Default)]
struct Seen {
    tasks: Mutex<HashMap<String, Told>>,
    one_more: Condvar,
}

#[derive(Default)]
struct Told {
    lines: Vec<String>,
    end: Option<Verdict>,
}

impl Ends {
    fn wait(&self, id: &str) -> Verdict {
        let tasks = self.0.tasks.lock().unwrap();
        let is_running =
            |tasks: &mut HashMap<String, Told>| tasks.get(id).is_none_or(|told| told.end.is_none());
        let (mut tasks, waited) = self
            .0
            .one_more
            .wait_timeout_while(tasks, PATIENCE, is_running)
            .unwrap();
        assert!(!waited.timed_out(), "the task {id} never ended");
        let told = tasks.remove(id).unwrap();
        let mut verdict = told.end.unwrap();
        for line in told.lines {
            verdict.said.push_str("\nlog: ");
            verdict.said.push_str(&line);
        }
        verdict
    }

    fn tell(&self, id: &str, tell: impl FnOnce(&mut Told)) {
        tell(
            self.0
                .tasks
                .lock()
                .unwrap()
                .entry(id.to_owned())
                .or_default(),
        );
        self.0.one_more.notify_all();
    }
}

impl Observer for Ends {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Line { run, message, .. } => self.tell(run.task, |told| {
                told.lines.truncate(20);
                told.lines.push(message.chars().take(200).collect());
            }),
            Event::Settled {
                run, settlement, ..
            } => {
                let (word, said) = match settlement {
                    Settlement::Done { reply } => ("done".to_owned(), start(&reply.body)),
                    Settlement::Dead { letter, .. } => {
                        (letter.reason.clone(), letter.error.clone())
                    }
                    other => ("not settled for good".to_owned(), format!("{other:?}")),
                };
                self.tell(run.task, |told| told.end = Some(Verdict { word, said }));
            }
            _ => {}
        }
    }
}
