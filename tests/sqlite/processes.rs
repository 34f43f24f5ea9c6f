//! Several processes on one file: whose tasks are whose, and how soon each hears of the others.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use scutwork::broker::{Broker, Message, ReplyTo};

use super::process::{Process, role, say};
use super::{PATIENCE, done, id, identified, open, take, tasks};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_keeps_its_tasks_and_a_killed_one_gives_them_back() {
    if let Some((_, folder)) = role() {
        let broker = open(&folder.join("queue.db")).unwrap();
        let mut consumer = broker.consume(&tasks(), 1).await.unwrap();
        let _held = take(&mut consumer, 1).await;
        say("holding");
        return std::future::pending().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    broker
        .publish(&tasks(), vec![identified("held")], None)
        .await
        .unwrap();
    let test =
        "sqlite::processes::a_stopped_process_keeps_its_tasks_and_a_killed_one_gives_them_back";
    let mut process = Process::start(test, "hold", folder.path());
    process.await_line("holding");
    process.signal(Signal::STOP);
    let mut consumer = broker.consume(&tasks(), 1).await.unwrap();
    let mut into = Vec::new();
    // Time enough to be taken for dead several times.
    let taken = tokio::time::timeout(Duration::from_secs(4), consumer.next(&mut into, 1)).await;
    assert!(taken.is_err(), "{into:?}");
    let killed = Instant::now();
    process.signal(Signal::KILL);
    let deliveries = take(&mut consumer, 1).await;
    eprintln!("taken over {:?} after the kill", killed.elapsed());
    assert_eq!(
        (id(&deliveries[0]).as_str(), deliveries[0].crashes),
        ("held", 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_seen_by_another_process_at_once() {
    const COUNT: usize = 300;
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos()
    };
    if let Some((_, folder)) = role() {
        let broker = open(&folder.join("queue.db")).unwrap();
        let mut consumer = broker.consume(&tasks(), 1).await.unwrap();
        say("ready");
        loop {
            let mut into = Vec::new();
            consumer.next(&mut into, 1).await;
            for delivery in into {
                delivery.settle(done(now().to_string())).await.unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    let mut replies = broker.replies().await.unwrap();
    let test = "sqlite::processes::a_task_is_seen_by_another_process_at_once";
    let mut process = Process::start(test, "work", folder.path());
    process.await_line("ready");
    let mut waits = Vec::new();
    for _ in 0..COUNT {
        let message = Message {
            reply_to: Some(ReplyTo {
                address: replies.address().to_owned(),
                correlation_id: None,
                notify: false,
            }),
            ..Message::default()
        };
        let submitted = now();
        replies
            .publish(&tasks(), vec![message], None)
            .await
            .unwrap();
        let (_, reply) = tokio::time::timeout(PATIENCE, replies.next())
            .await
            .unwrap()
            .unwrap();
        let seen: u128 = std::str::from_utf8(&reply.body).unwrap().parse().unwrap();
        waits.push(Duration::from_nanos_u128(seen.saturating_sub(submitted)));
    }
    waits.sort_unstable();
    eprintln!(
        "from the submit in one process to the task in another: p50 {:?}, p99 {:?}",
        waits[COUNT / 2],
        waits[COUNT * 99 / 100]
    );
}
