//! What only the embedded queue can do or get wrong.

mod disk;
mod files;
mod kills;
mod places;
mod power;
mod process;
mod processes;
mod time;
mod volume;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, BrokerError, Consumer, Delivery, Message, SettleError};
use scutwork::name::QueueName;
use scutwork::settlement::{DeadLetter, Reply, ReplyKind, Settlement};

use crate::broker_contract::{Subject, announce, printed};

/// How long anything that must happen may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file in a folder of its own.
pub(crate) struct SqliteSubject {
    folder: tempfile::TempDir,
    queues: AtomicU32,
}

impl SqliteSubject {
    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }
}

#[async_trait]
impl Subject for SqliteSubject {
    async fn start() -> Self {
        announce("SQLite", || rusqlite::version().to_owned());
        SqliteSubject {
            folder: tempfile::tempdir().unwrap(),
            queues: AtomicU32::new(0),
        }
    }

    async fn connect(&self) -> Arc<dyn Broker> {
        Arc::new(Sqlite::open(SqliteOptions::new(self.path()), printed()).unwrap())
    }

    fn queue(&self) -> QueueName {
        let number = self.queues.fetch_add(1, Ordering::Relaxed);
        format!("queue-{number}").parse().unwrap()
    }
}

fn open(path: &Path) -> Result<Sqlite, BrokerError> {
    Sqlite::open(SqliteOptions::new(path), printed())
}

fn tasks() -> QueueName {
    "tasks".parse().unwrap()
}

fn identified(id: impl Into<String>) -> Message {
    Message {
        id: Some(id.into()),
        ..Message::default()
    }
}

fn id(delivery: &Delivery) -> String {
    delivery.message.id.clone().unwrap()
}

fn done(body: String) -> Settlement {
    Settlement::Done {
        reply: Reply {
            kind: ReplyKind::Done,
            task: String::new(),
            attempt: 1,
            content_type: None,
            body: body.into(),
        },
    }
}

fn dead() -> Settlement {
    let error = "no";
    Settlement::Dead {
        letter: DeadLetter {
            reason: "rejected".into(),
            code: None,
            error: error.into(),
            attempts: 1,
            plugin: None,
            digest: None,
            worker: "w1".into(),
            at: UNIX_EPOCH,
        },
        reply: Reply {
            kind: ReplyKind::Dead,
            task: String::new(),
            attempt: 1,
            content_type: None,
            body: error.into(),
        },
    }
}

/// Does all that is left on the queue, however it is held or delayed, and gives the ids.
async fn drain(broker: &Sqlite) -> BTreeSet<String> {
    let mut consumer = broker.consume(&tasks(), 1000).await.unwrap();
    let mut left = BTreeSet::new();
    loop {
        let depth = broker.depth(&tasks()).await.unwrap().unwrap();
        if depth.ready + depth.running.unwrap() + depth.delayed == 0 {
            consumer.stop().await;
            return left;
        }
        let deliveries = take(&mut consumer, 1000).await;
        left.extend(deliveries.iter().map(id));
        finish(deliveries).await;
    }
}

/// Says of each delivery that it is done.
async fn finish(deliveries: Vec<Delivery>) {
    let settled = deliveries
        .into_iter()
        .map(|delivery| delivery.settle(done(String::new())));
    for settled in futures_util::future::join_all(settled).await {
        settled.unwrap();
    }
}

async fn take(consumer: &mut Box<dyn Consumer>, limit: usize) -> Vec<Delivery> {
    let mut into = Vec::new();
    tokio::time::timeout(PATIENCE, consumer.next(&mut into, limit))
        .await
        .expect("deliveries come");
    into
}

#[tokio::test]
async fn higher_priorities_run_first_then_the_longest_due() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    let ranked = |id: &str, priority| Message {
        priority,
        ..identified(id)
    };
    let messages = vec![
        ranked("none", None),
        ranked("low", Some(1)),
        ranked("high", Some(9)),
        ranked("none-2", Some(0)),
    ];
    broker.publish(&tasks(), messages, None).await.unwrap();
    broker
        .publish(
            &tasks(),
            vec![ranked("later", Some(255))],
            Some(Duration::from_secs(3600)),
        )
        .await
        .unwrap();
    let mut consumer = broker.consume(&tasks(), 4).await.unwrap();
    let order: Vec<String> = take(&mut consumer, 4).await.iter().map(id).collect();
    assert_eq!(order, ["high", "low", "none", "none-2"]);
}

#[tokio::test]
async fn a_delivery_that_is_dropped_comes_back_as_from_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    broker
        .publish(&tasks(), vec![identified("a"), identified("b")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&tasks(), 2).await.unwrap();
    let handed_out = take(&mut consumer, 1).await;
    assert_eq!(id(&handed_out[0]), "a");
    drop(handed_out);
    drop(consumer);
    let mut heir = broker.consume(&tasks(), 2).await.unwrap();
    let mut crashes = Vec::new();
    while crashes.len() < 2 {
        for delivery in take(&mut heir, 2).await {
            crashes.push((id(&delivery), delivery.crashes));
            delivery.settle(done(String::new())).await.unwrap();
        }
    }
    crashes.sort();
    assert_eq!(crashes, [("a".to_owned(), 1), ("b".to_owned(), 0)]);
}

#[tokio::test]
async fn a_delay_is_exact_and_never_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    let mut consumer = broker.consume(&tasks(), 1).await.unwrap();
    for millis in [30, 700, 1250] {
        let delay = Duration::from_millis(millis);
        let started = Instant::now();
        broker
            .publish(&tasks(), vec![identified("later")], Some(delay))
            .await
            .unwrap();
        let delivery = take(&mut consumer, 1).await.remove(0);
        let waited = started.elapsed();
        // The file counts in whole milliseconds.
        assert!(waited + Duration::from_millis(1) >= delay, "{waited:?}");
        println!("a delay of {delay:?} took {waited:?}");
        delivery.settle(done(String::new())).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_was_taken_for_dead_cannot_settle_what_another_has_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let mistaken = open(&path).unwrap();
    mistaken
        .publish(&tasks(), vec![identified("a")], None)
        .await
        .unwrap();
    let mut consumer = mistaken.consume(&tasks(), 1).await.unwrap();
    let stale = take(&mut consumer, 1).await.remove(0);
    // The sign of life goes, and the process does not.
    for entry in std::fs::read_dir(folder.path().join("queue.db-owners")).unwrap() {
        // Another file in its place: one that was only removed would be put back.
        let path = entry.unwrap().path();
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(path).unwrap();
    }
    let heir = open(&path).unwrap();
    let mut other = heir.consume(&tasks(), 1).await.unwrap();
    let taken = take(&mut other, 1).await.remove(0);
    assert_eq!(taken.crashes, 1);
    let settled = stale.settle(done(String::new())).await;
    assert!(matches!(settled, Err(SettleError::Lost)), "{settled:?}");
    let depth = heir.depth(&tasks()).await.unwrap().unwrap();
    assert_eq!(depth.running, Some(1));
    taken.settle(done(String::new())).await.unwrap();
}
