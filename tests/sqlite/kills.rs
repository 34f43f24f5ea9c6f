//! Processes that are killed at any point: what they had confirmed is there, and what was done stays done.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use scutwork::broker::{Broker, Delivery, Record};
use scutwork::settlement::Settlement;

use super::process::{Journal, Process, role, say};
use super::{dead, done, drain, id, identified, open, tasks};

/// How many rounds of kills there are, unless `SCUTWORK_KILLS` says otherwise.
const ROUNDS: u32 = 25;

/// Publishes for ever, and notes what was confirmed.
async fn produce(folder: &Path) {
    let broker = open(&folder.join("queue.db")).unwrap();
    let mut confirmed = Journal::open(folder, "confirmed");
    say("ready");
    for batch in 0.. {
        let ids: Vec<String> = (0..fastrand::usize(1..20))
            .map(|number| format!("{}-{batch}-{number}", std::process::id()))
            .collect();
        let messages = ids.iter().map(identified).collect();
        let after = (fastrand::u8(..4) == 0).then(|| Duration::from_millis(20));
        broker.publish(&tasks(), messages, after).await.unwrap();
        confirmed.note(&ids);
    }
}

/// Works for ever: a first attempt is now and then retried or buried; what is to be done is noted before
/// and after its settlement.
async fn work(folder: &Path) {
    let broker = open(&folder.join("queue.db")).unwrap();
    let mut settling = Journal::open(folder, "settling");
    let mut settled = Journal::open(folder, "settled");
    let mut consumer = broker.consume(&tasks(), 50).await.unwrap();
    say("ready");
    loop {
        let mut deliveries = Vec::new();
        consumer.next(&mut deliveries, 20).await;
        for delivery in deliveries {
            match fastrand::u8(..8) {
                0 | 1 if delivery.message.record.attempt == 1 => {
                    delivery.settle(again()).await.unwrap();
                }
                2 => delivery.settle(dead()).await.unwrap(),
                _ => finish(delivery, &mut settling, &mut settled).await,
            }
        }
    }
}

fn again() -> Settlement {
    Settlement::Release {
        after: Duration::ZERO,
        record: Record {
            attempt: 2,
            ..Record::default()
        },
    }
}

async fn finish(delivery: Delivery, settling: &mut Journal, settled: &mut Journal) {
    let id = id(&delivery);
    settling.note(std::slice::from_ref(&id));
    delivery.settle(done(String::new())).await.unwrap();
    settled.note(&[id]);
}

/// Puts dead letters back for ever.
async fn revive(folder: &Path) {
    let broker = open(&folder.join("queue.db")).unwrap();
    say("ready");
    loop {
        revive_all(&broker).await;
    }
}

async fn revive_all(broker: &dyn Broker) {
    let mut pass = broker.dead_letters(&tasks()).await.unwrap();
    loop {
        let letters = pass.next(50).await.unwrap();
        if letters.is_empty() {
            return pass.close().await.unwrap();
        }
        // What somebody else was faster with is kept there.
        pass.retry(letters).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_lost_or_done_twice_when_processes_are_killed_at_random() {
    match role() {
        Some((role, folder)) if role == "produce" => return produce(&folder).await,
        Some((role, folder)) if role == "revive" => return revive(&folder).await,
        Some((_, folder)) => return work(&folder).await,
        None => {}
    }
    let rounds = std::env::var("SCUTWORK_KILLS").map_or(ROUNDS, |rounds| {
        rounds
            .parse()
            .expect("SCUTWORK_KILLS is a number of rounds")
    });
    let folder = tempfile::tempdir().unwrap();
    let test = "sqlite::kills::no_task_is_lost_or_done_twice_when_processes_are_killed_at_random";
    for _ in 0..rounds {
        let mut processes = ["produce", "produce", "work", "work", "revive"]
            .map(|role| Process::start(test, role, folder.path()));
        // In half of the rounds they are killed while they start.
        if fastrand::bool() {
            for process in &mut processes {
                process.await_line("ready");
            }
        }
        fastrand::shuffle(&mut processes);
        for process in processes {
            // The point in time is the test; there is nothing to wait for.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..60))).await;
            drop(process);
        }
    }
    let broker = open(&folder.path().join("queue.db")).unwrap();
    revive_all(&broker).await;
    let left = drain(&broker).await;
    account(folder.path(), &left, rounds);
}

fn account(folder: &Path, left: &BTreeSet<String>, rounds: u32) {
    let [confirmed, settling, settled] =
        ["confirmed", "settling", "settled"].map(|name| Journal::read(folder, name));
    let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
    let (begun, ended) = (set(&settling), set(&settled));
    eprintln!(
        "{} confirmed, {} done, {} left after {rounds} rounds; {} were in the middle of being done",
        confirmed.len(),
        settled.len(),
        left.len(),
        begun.difference(&ended).count()
    );
    assert!(!settled.is_empty() && !confirmed.is_empty());
    let lost: Vec<_> = confirmed
        .iter()
        .filter(|id| !begun.contains(*id) && !left.contains(*id))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert_eq!(settled.len(), ended.len(), "some were done twice");
    let undead: Vec<_> = ended.intersection(left).collect();
    assert!(undead.is_empty(), "done, and delivered again: {undead:?}");
}
