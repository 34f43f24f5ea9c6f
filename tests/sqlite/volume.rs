//! Many tasks: what they cost, and what they leave behind.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use scutwork::broker::{Broker, Message};

use super::{finish, identified, open, take, tasks};

/// How many tasks share a transaction.
const BATCH: usize = 500;

/// How many tasks go through one file, unless `SCUTWORK_VOLUME` says otherwise.
const VOLUME: usize = 20_000;

/// In how many rounds, each of which empties the queue.
const ROUNDS: usize = 20;

/// How long it takes to claim and remove as many rows in transactions of the same size, as durably, with
/// nothing but the database.
fn bare(path: &Path, count: usize) -> Duration {
    let mut file = Connection::open(path).unwrap();
    file.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE task (id INTEGER PRIMARY KEY, task TEXT, body BLOB, owner TEXT);",
    )
    .unwrap();
    for batch in 0..count / BATCH {
        let transaction = file.transaction().unwrap();
        for number in 0..BATCH {
            transaction
                .prepare_cached("INSERT INTO task (task, body) VALUES (?1, x'')")
                .unwrap()
                .execute([format!("{batch}-{number}")])
                .unwrap();
        }
        transaction.commit().unwrap();
    }
    let started = Instant::now();
    for batch in 0..count / BATCH {
        let ids = (1..=BATCH).map(|number| (batch * BATCH + number) as i64);
        for statement in [
            "UPDATE task SET owner = 'me' WHERE id = ?1 RETURNING task, body",
            "DELETE FROM task WHERE id = ?1 AND owner = 'me' RETURNING id",
        ] {
            let transaction = file.transaction().unwrap();
            for id in ids.clone() {
                let mut statement = transaction.prepare_cached(statement).unwrap();
                statement.query_row([id], |_| Ok(())).unwrap();
            }
            transaction.commit().unwrap();
        }
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_tasks_go_through_with_full_durability() {
    const COUNT: usize = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    let started = Instant::now();
    for batch in 0..COUNT / BATCH {
        let messages = (0..BATCH)
            .map(|number| identified(format!("{batch}-{number}")))
            .collect();
        broker.publish(&tasks(), messages, None).await.unwrap();
    }
    let published = started.elapsed();
    let mut consumer = broker.consume(&tasks(), 2000).await.unwrap();
    let mut seen = 0;
    let mut settling = tokio::task::JoinSet::new();
    while seen < COUNT {
        let deliveries = take(&mut consumer, BATCH).await;
        seen += deliveries.len();
        settling.spawn(finish(deliveries));
    }
    settling.join_all().await;
    let whole = started.elapsed();
    let depth = broker.depth(&tasks()).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.running, depth.delayed), (0, Some(0), 0));
    let bare = bare(&folder.path().join("bare.db"), COUNT);
    let rate = |time: Duration| (COUNT as f64 / time.as_secs_f64()) as u64;
    eprintln!(
        "published {}/s, claimed and done {}/s, which is {:.2} of bare SQLite's {}/s",
        rate(published),
        rate(whole - published),
        bare.as_secs_f64() / (whole - published).as_secs_f64(),
        rate(bare)
    );
}

#[tokio::test]
async fn the_file_does_not_grow_with_the_tasks_that_went_through() {
    let count = std::env::var("SCUTWORK_VOLUME").map_or(VOLUME, |count| {
        count.parse().expect("SCUTWORK_VOLUME is a number of tasks")
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let log = folder.path().join("queue.db-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let broker = open(&path).unwrap();
    let mut consumer = broker.consume(&tasks(), 1000).await.unwrap();
    let (mut sizes, mut logs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Many small ones and some that take pages of their own.
        let message = |number| Message {
            body: vec![7; if number % 100 == 0 { 64 << 10 } else { 100 }].into(),
            ..Message::default()
        };
        let messages = (0..count / ROUNDS).map(message).collect();
        broker.publish(&tasks(), messages, None).await.unwrap();
        let mut seen = 0;
        while seen < count / ROUNDS {
            let deliveries = take(&mut consumer, BATCH).await;
            seen += deliveries.len();
            finish(deliveries).await;
        }
        sizes.push(size(&path));
        logs.push(size(&log));
    }
    consumer.stop().await;
    broker.close().await;
    eprintln!(
        "after {count} tasks the file has {} KiB and after half of them it had {}; its log had {} at most, \
         and {} at the end",
        sizes[ROUNDS - 1] >> 10,
        sizes[ROUNDS / 2] >> 10,
        logs.iter().max().unwrap() >> 10,
        size(&log) >> 10
    );
    assert!(sizes[ROUNDS - 1] <= sizes[ROUNDS / 2] * 5 / 4, "{sizes:?}");
    assert_eq!(size(&log), 0);
}
