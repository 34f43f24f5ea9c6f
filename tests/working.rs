//! What a worker makes of many tasks at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, Message};
use scutwork::event::{Event, Observer, Observers};
use scutwork::name::QueueName;
use scutwork::plugin::{Registry, embedded};
use scutwork::sandbox::{Limits, Sandbox, SandboxSettings};
use scutwork::worker::{StopSwitch, Worker};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::program::PATIENCE;
use crate::support::{shelf, worker};

const SLOTS: usize = 8;

fn queue() -> QueueName {
    "work".parse().unwrap()
}

fn open(folder: &TempDir) -> Arc<Sqlite> {
    let options = SqliteOptions::new(folder.path().join("queue.db"));
    Arc::new(Sqlite::open(options, Arc::new(|_| {})).unwrap())
}

/// Panics when one task begins, as a fault of the host's might, and says when others are settled.
struct Faulty {
    at: String,
    settled: mpsc::UnboundedSender<String>,
}

impl Observer for Faulty {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Started { run, .. } if run.task == self.at => panic!("a fault of the host's"),
            Event::Settled { run, .. } => self.settled.send(run.task.to_owned()).unwrap(),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_hosts_in_one_task_ends_no_other_and_leaves_it_on_its_queue() {
    const COUNT: u32 = 100;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("echo.wasm"), embedded::echo()).unwrap();
    let (settled, mut told) = mpsc::unbounded_channel();
    let faulty = Faulty {
        at: "3".to_owned(),
        settled,
    };
    let observers = Observers::new(vec![Box::new(faulty)]);
    let settings = SandboxSettings {
        slots: SLOTS,
        ceiling: Limits::CEILING,
        threads: 2,
    };
    let sandbox = Arc::new(Sandbox::new(&settings).unwrap());
    let shelf = shelf::settings(folder.path());
    let registry = Registry::open(shelf, sandbox.clone(), observers.clone()).unwrap();
    let messages = (0..COUNT).map(|number| Message {
        plugin: Some("echo".into()),
        id: Some(number.to_string()),
        ..Message::default()
    });
    let broker = open(&folder);
    broker
        .publish(&queue(), messages.collect(), None)
        .await
        .unwrap();
    let (switch, stop) = StopSwitch::new();
    let worker = Worker::new(
        worker::settings(queue(), SLOTS),
        broker,
        Arc::new(registry),
        sandbox,
        observers,
        stop,
    );
    let worker = tokio::spawn(worker.run());
    let mut done = BTreeSet::new();
    while done.len() < COUNT as usize - 1 {
        let next = timeout(PATIENCE, told.recv());
        assert!(done.insert(next.await.expect("others go on").unwrap()));
    }
    assert!(!done.contains("3"));
    switch.drain();
    worker.await.unwrap().unwrap();
    let broker = open(&folder);
    let depth = broker.depth(&queue()).await.unwrap().unwrap();
    assert_eq!(
        (depth.ready + depth.running.unwrap_or(0), depth.dead),
        (1, 0)
    );
    broker.close().await;
}
