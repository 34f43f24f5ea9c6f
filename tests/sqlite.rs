//! What only the embedded queue can do or get wrong.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, BrokerError, Consumer, Delivery, Message, Record, ReplyTo};
use scutwork::name::QueueName;
use scutwork::settlement::{Reply, ReplyKind, Settlement};

use crate::broker_contract::{Subject, printed};

/// How long anything that must happen may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a child process of these tests is to do: this binary is run again with one test's name, and
/// that test finds its part here.
const ROLE: &str = "SCUTWORK_TEST_ROLE";

/// The folder that a child works in.
const FOLDER: &str = "SCUTWORK_TEST_FOLDER";

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

async fn take(consumer: &mut Box<dyn Consumer>, limit: usize) -> Vec<Delivery> {
    let mut into = Vec::new();
    tokio::time::timeout(PATIENCE, consumer.next(&mut into, limit))
        .await
        .expect("deliveries come");
    into
}

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
    let test = "sqlite::no_confirmed_task_is_lost_when_processes_are_killed_at_random";
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
    let test = "sqlite::a_stopped_process_keeps_its_tasks_and_a_killed_one_gives_them_back";
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
    let test = "sqlite::a_task_is_seen_by_another_process_at_once";
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_tasks_go_through_with_full_durability() {
    const COUNT: usize = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).unwrap();
    let started = Instant::now();
    for batch in 0..COUNT / 500 {
        let messages = (0..500)
            .map(|number| identified(format!("{batch}-{number}")))
            .collect();
        broker.publish(&tasks(), messages, None).await.unwrap();
    }
    let published = started.elapsed();
    let mut consumer = broker.consume(&tasks(), 2000).await.unwrap();
    let mut seen = 0;
    let mut settling = tokio::task::JoinSet::new();
    while seen < COUNT {
        let deliveries = take(&mut consumer, 500).await;
        seen += deliveries.len();
        settling.spawn(async move {
            let settled = deliveries
                .into_iter()
                .map(|delivery| delivery.settle(done(String::new())));
            for settled in futures_util::future::join_all(settled).await {
                settled.unwrap();
            }
        });
    }
    settling.join_all().await;
    let whole = started.elapsed();
    let depth = broker.depth(&tasks()).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.running, depth.delayed), (0, Some(0), 0));
    let rate = |time: Duration| (COUNT as f64 / time.as_secs_f64()) as u64;
    eprintln!(
        "published {}/s, claimed and done {}/s, all {}/s",
        rate(published),
        rate(whole - published),
        rate(whole)
    );
}

#[tokio::test]
async fn the_file_does_not_grow_with_the_tasks_that_went_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let broker = open(&path).unwrap();
    let mut consumer = broker.consume(&tasks(), 100).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..20 {
        let big = |_| Message {
            body: vec![7; 64 << 10].into(),
            ..Message::default()
        };
        broker
            .publish(&tasks(), (0..100).map(big).collect(), None)
            .await
            .unwrap();
        let mut seen = 0;
        while seen < 100 {
            let deliveries = take(&mut consumer, 100).await;
            seen += deliveries.len();
            let settled = deliveries
                .into_iter()
                .map(|delivery| delivery.settle(done(String::new())));
            for settled in futures_util::future::join_all(settled).await {
                settled.unwrap();
            }
        }
        sizes.push(std::fs::metadata(&path).unwrap().len());
    }
    assert!(sizes[19] <= 3 * (100 * (64 << 10)), "{sizes:?}");
}

/// The sentence with which a path is refused.
fn refusal(path: &Path) -> String {
    match open(path) {
        Err(BrokerError::Refused(error)) => format!("{error:#}"),
        Err(BrokerError::Unavailable(error)) => panic!("should not be tried again: {error:#}"),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

/// Refuses `path` for `reason`, and leaves the file and its folder as they were.
fn assert_refused_untouched(path: &Path, reason: &str) {
    let names = || {
        let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name())
            .collect::<BTreeSet<_>>()
    };
    let before = (std::fs::read(path).unwrap(), names());
    let refused = refusal(path);
    assert!(refused.contains(reason), "{refused}");
    assert!(
        refused.contains(path.file_name().unwrap().to_str().unwrap()),
        "{refused}"
    );
    assert!(
        before == (std::fs::read(path).unwrap(), names()),
        "touched: {:?}",
        names()
    );
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "dear diary\n".repeat(1000)).unwrap();
    assert_refused_untouched(&text, "not a queue");
    for (name, mode) in [("foreign.db", "DELETE"), ("foreign-wal.db", "WAL")] {
        let path = folder.path().join(name);
        let foreign = rusqlite::Connection::open(&path).unwrap();
        foreign
            .pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
            .unwrap();
        foreign
            .execute_batch("CREATE TABLE message (x); INSERT INTO message VALUES (1)")
            .unwrap();
        drop(foreign);
        assert_refused_untouched(&path, "another program");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let broker = open(&path).unwrap();
    broker
        .publish(&tasks(), vec![identified("a")], None)
        .await
        .unwrap();
    broker.close().await;
    drop(broker);
    let mut bytes = std::fs::read(&path).unwrap();
    // Everything after the header.
    bytes[100..].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let refused = refusal(&path);
    assert!(
        refused.contains("damaged") && refused.contains("queue.db"),
        "{refused}"
    );
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let broker = open(&path).unwrap();
    broker.close().await;
    drop(broker);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let refused = refusal(&path);
    assert!(refused.contains("update scutwork"), "{refused}");
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn a_path_where_no_file_can_be_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refused = refusal(folder.path());
    assert!(refused.contains("is a directory"), "{refused}");
    let refused = refusal(&folder.path().join("missing/queue.db"));
    assert!(
        refused.contains("missing") && refused.contains("create it first"),
        "{refused}"
    );
}

/// A small disk of memory.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Disk {
        let disk = Disk(tempfile::tempdir().unwrap());
        disk.run(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        disk
    }

    fn remount(&self, options: &str) {
        self.run(&["-o", &format!("remount,{options}")]);
    }

    fn run(&self, arguments: &[&str]) {
        let status = Command::new("mount")
            .args(arguments)
            .arg(self.0.path())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "NOT RUN: mounting a disk needs root; run the tests as root or in a container"
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn a_read_only_disk_is_refused_with_the_reason() {
    let disk = Disk::mount("4m");
    let path = disk.0.path().join("queue.db");
    let broker = open(&path).unwrap();
    broker.close().await;
    drop(broker);
    disk.remount("ro");
    let refused = refusal(&path);
    assert!(refused.contains("cannot be written"), "{refused}");
    let refused = refusal(&disk.0.path().join("new.db"));
    assert!(refused.contains("cannot be written"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_loses_nothing() {
    const BATCH: usize = 10;
    let disk = Disk::mount("4m");
    let path = disk.0.path().join("queue.db");
    let broker = open(&path).unwrap();
    let mut confirmed = 0;
    let error = loop {
        let big = |_| Message {
            body: vec![7; 10_000].into(),
            ..Message::default()
        };
        match broker
            .publish(&tasks(), (0..BATCH).map(big).collect(), None)
            .await
        {
            Ok(()) => confirmed += BATCH,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");
    let depth = broker.depth(&tasks()).await.unwrap().unwrap();
    assert_eq!(depth.ready, confirmed as u64);

    disk.remount("size=64m");
    let mut consumer = broker.consume(&tasks(), 100).await.unwrap();
    let mut seen = 0;
    while seen < confirmed {
        for delivery in take(&mut consumer, 100).await {
            assert_eq!(delivery.message.body.len(), 10_000);
            delivery.settle(done(String::new())).await.unwrap();
            seen += 1;
        }
    }
    let depth = broker.depth(&tasks()).await.unwrap().unwrap();
    assert_eq!((seen, depth.ready, depth.running), (confirmed, 0, Some(0)));
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
