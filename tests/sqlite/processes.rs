//! Several processes on one file, and what becomes of their tasks when they die.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use scutwork::broker::{Broker, Message, Record, ReplyTo};
use scutwork::settlement::Settlement;

use super::{PATIENCE, done, id, identified, open, take, tasks};

/// What a child process of these tests is to do: this binary is run again with one test's name, and
/// that test finds its part here.
const ROLE: &str = "SCUTWORK_TEST_ROLE";

/// The folder that a child works in.
const FOLDER: &str = "SCUTWORK_TEST_FOLDER";

/// Another process, killed when dropped.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    /// Runs `test` of this binary once more, in the part of `role`.
    fn start(test: &str, role: &str, folder: &Path) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// Waits until it says this.
    fn await_line(&mut self, what: &str) {
        for line in &mut self.lines {
            if line.unwrap().contains(what) {
                return;
            }
        }
        panic!("the process ended without saying {what:?}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part that this process has, if it is a child.
fn role() -> Option<(String, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    Some((role, PathBuf::from(std::env::var_os(FOLDER)?)))
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{line}").unwrap();
    stdout.flush().unwrap();
}

/// Lines that outlive the process that wrote them, whenever it is killed.
struct Journal(File);

impl Journal {
    fn open(folder: &Path, name: &str) -> Journal {
        let path = folder.join(name);
        Journal(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap(),
        )
    }

    fn note(&mut self, ids: &[String]) {
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        self.0.write_all(lines.as_bytes()).unwrap();
    }

    fn read(folder: &Path, name: &str) -> BTreeSet<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

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
        broker.publish(&tasks(), messages, None).await.unwrap();
        confirmed.note(&ids);
    }
}

/// Works for ever: a first attempt is now and then retried; what is to be done is noted before and
/// after its settlement.
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
            let id = id(&delivery);
            if delivery.message.record.attempt == 1 && fastrand::u8(..4) == 0 {
                let record = Record {
                    attempt: 2,
                    ..Record::default()
                };
                let after = Duration::ZERO;
                delivery
                    .settle(Settlement::Release { after, record })
                    .await
                    .unwrap();
            } else {
                settling.note(std::slice::from_ref(&id));
                delivery.settle(done(String::new())).await.unwrap();
                settled.note(&[id]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_task_is_lost_when_processes_are_killed_at_random() {
    const ROUNDS: u32 = 30;
    match role() {
        Some((role, folder)) if role == "produce" => return produce(&folder).await,
        Some((_, folder)) => return work(&folder).await,
        None => {}
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "sqlite::processes::no_confirmed_task_is_lost_when_processes_are_killed_at_random";
    for _ in 0..ROUNDS {
        let mut processes = ["produce", "produce", "work", "work"]
            .map(|role| Process::start(test, role, folder.path()));
        processes
            .iter_mut()
            .for_each(|process| process.await_line("ready"));
        fastrand::shuffle(&mut processes);
        for process in processes {
            // The point in time is the test; there is nothing to wait for.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..60))).await;
            drop(process);
        }
    }

    let broker = open(&folder.path().join("queue.db")).unwrap();
    let mut consumer = broker.consume(&tasks(), 1000).await.unwrap();
    let mut left = BTreeSet::new();
    let started = Instant::now();
    loop {
        let depth = broker.depth(&tasks()).await.unwrap().unwrap();
        if depth.ready + depth.running.unwrap() + depth.delayed == 0 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{depth:?}");
        let deliveries = take(&mut consumer, 1000).await;
        left.extend(deliveries.iter().map(id));
        let settled = deliveries
            .into_iter()
            .map(|delivery| delivery.settle(done(String::new())));
        for settled in futures_util::future::join_all(settled).await {
            settled.unwrap();
        }
    }
    let [confirmed, settling, settled] =
        ["confirmed", "settling", "settled"].map(|name| Journal::read(folder.path(), name));
    eprintln!(
        "{} confirmed, {} settled, {} left after {ROUNDS} rounds",
        confirmed.len(),
        settled.len(),
        left.len()
    );
    assert!(!settled.is_empty() && !confirmed.is_empty());
    let lost: Vec<_> = confirmed
        .iter()
        .filter(|id| !settling.contains(*id) && !left.contains(*id))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let undead: Vec<_> = settled.intersection(&left).collect();
    assert!(undead.is_empty(), "done, and delivered again: {undead:?}");
}

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
