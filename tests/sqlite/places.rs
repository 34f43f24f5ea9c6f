//! A queue's file and what lies beside it are taken away while they are in use.

use std::fs::{read_dir, rename};

use scutwork::broker::sqlite::Sqlite;
use scutwork::broker::{Broker, BrokerError};

use super::{PATIENCE, drain, identified, open, tasks};

async fn assert_not_confirmed(broker: &Sqlite, task: &str) {
    let published = broker.publish(&tasks(), vec![identified(task)], None).await;
    match published {
        Err(BrokerError::Unavailable(error)) => {
            let said = error.to_string();
            assert!(said.contains("removed, moved or replaced"), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_that_vanished_confirms_nothing_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let [here, away] = ["here", "away"].map(|name| folder.path().join(name));
    std::fs::create_dir(&here).unwrap();
    let broker = open(&here.join("queue.db")).unwrap();
    let queue = tasks();
    let publish = |task| broker.publish(&queue, vec![identified(task)], None);
    publish("first").await.unwrap();
    rename(&here, &away).unwrap();
    assert_not_confirmed(&broker, "nowhere").await;
    rename(&away, &here).unwrap();
    publish("second").await.unwrap();
    let left = drain(&broker).await;
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["first", "second"]);
}

#[tokio::test]
async fn a_file_that_was_replaced_confirms_nothing_to_those_who_have_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let old = open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_not_confirmed(&old, "nowhere").await;
    let _ = std::fs::remove_file(folder.path().join("queue.db-wal"));
    let _ = std::fs::remove_file(folder.path().join("queue.db-shm"));
    let new = open(&path).unwrap();
    assert_not_confirmed(&old, "nowhere").await;
    new.publish(&tasks(), vec![identified("here")], None)
        .await
        .unwrap();
    assert_eq!(drain(&new).await.len(), 1);
}

#[tokio::test]
async fn a_process_whose_sign_of_life_was_removed_puts_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let _broker = open(&folder.path().join("queue.db")).unwrap();
    let owners = folder.path().join("queue.db-owners");
    let names = || {
        let entries = read_dir(&owners).ok()?;
        let names = entries.map(|entry| entry.unwrap().file_name());
        Some(names.collect::<Vec<_>>())
    };
    let before = names();
    std::fs::remove_dir_all(&owners).unwrap();
    let put_back = async {
        while names() != before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, put_back).await.unwrap();
}
