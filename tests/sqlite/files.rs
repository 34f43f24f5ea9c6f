//! Files and disks that are not as they should be.

use std::collections::BTreeSet;
use std::path::Path;

use scutwork::broker::{Broker, BrokerError, Message};

use super::disk::Disk;
use super::{done, identified, open, take, tasks};

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
async fn a_file_of_the_first_version_keeps_its_tasks_and_can_be_paused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(include_str!("../../host/src/broker/sqlite/schema.sql"))
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO queue VALUES (1, 'tasks');
             INSERT INTO message (id, notify, body) VALUES (1, 0, x'6f6c64');
             INSERT INTO waiting VALUES (1, 255, 0, 1, 0, 1, NULL, 0);
             PRAGMA application_id = 0x73637574;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    let broker = open(&path).unwrap();
    broker.set_paused(&tasks(), true).await.unwrap();
    assert!(broker.is_paused(&tasks()).await.unwrap());
    broker.set_paused(&tasks(), false).await.unwrap();
    let mut consumer = broker.consume(&tasks(), 1).await.unwrap();
    let mut taken = take(&mut consumer, 1).await;
    let old = taken.remove(0);
    assert_eq!(&old.message.body[..], b"old");
    old.settle(done(String::new())).await.unwrap();
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

#[tokio::test]
async fn a_read_only_disk_is_refused_with_the_reason() {
    let disk = Disk::of_memory("4m");
    let path = disk.path().join("queue.db");
    let broker = open(&path).unwrap();
    broker.close().await;
    drop(broker);
    disk.remount("ro");
    let refused = refusal(&path);
    assert!(refused.contains("cannot be written"), "{refused}");
    let refused = refusal(&disk.path().join("new.db"));
    assert!(refused.contains("cannot be written"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_loses_nothing() {
    const BATCH: usize = 10;
    let disk = Disk::of_memory("4m");
    let path = disk.path().join("queue.db");
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
async fn a_process_that_dies_while_it_moves_the_log_into_the_file_leaves_a_sound_queue() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let broker = open(&path("queue.db")).unwrap();
    // Enough that the file has to grow, which its first page tells.
    let messages = (0..2000).map(|number| identified(number.to_string()));
    broker
        .publish(&tasks(), messages.collect(), None)
        .await
        .unwrap();
    // By a process of its own: to close the file in this one would end the locks that it has on it.
    for end in ["", "-wal"] {
        let (from, to) = (format!("queue.db{end}"), format!("dead.db{end}"));
        let copied = std::process::Command::new("cp")
            .args([path(&from), path(&to)])
            .status()
            .unwrap();
        assert!(copied.success());
    }
    broker.close().await;
    // The first page is the first that is moved, and tells how many the file will have in the end.
    let mut file = std::fs::read(path("dead.db")).unwrap();
    file[28..32].copy_from_slice(&100_000_u32.to_be_bytes());
    std::fs::write(path("dead.db"), file).unwrap();
    let broker = open(&path("dead.db")).unwrap();
    let depth = broker.depth(&tasks()).await.unwrap().unwrap();
    assert_eq!(depth.ready, 2000);
    broker.close().await;
}
