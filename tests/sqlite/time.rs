//! Time that is not as it seems.

use std::time::{Duration, Instant};

use scutwork::broker::Broker;

use super::{done, id, identified, open, take, tasks};

const HOUR: i64 = 3_600_000;

/// Makes of a file what it would be if the wall clock had been set back by so much, and the machine been
/// restarted after that.
fn set_back_and_restart(path: &std::path::Path, by: i64) {
    let file = rusqlite::Connection::open(path).unwrap();
    let changes = format!(
        "UPDATE clock SET boot = 'before', base = 0, seen = seen + {by}, skew = skew - {by};
         UPDATE waiting SET due = due + {by};"
    );
    file.execute_batch(&changes).unwrap();
}

#[tokio::test]
async fn tasks_are_due_in_time_after_the_clock_was_changed_and_the_machine_restarted() {
    for by in [HOUR, -HOUR] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let broker = open(&path).unwrap();
        let delay = Duration::from_secs(3);
        let published = Instant::now();
        for (task, after) in [("now", None), ("later", Some(delay))] {
            let messages = vec![identified(task)];
            broker.publish(&tasks(), messages, after).await.unwrap();
        }
        broker.close().await;
        drop(broker);
        set_back_and_restart(&path, by);
        let broker = open(&path).unwrap();
        let mut consumer = broker.consume(&tasks(), 2).await.unwrap();
        for task in ["now", "later"] {
            let delivery = take(&mut consumer, 1).await.remove(0);
            assert_eq!(id(&delivery), task);
            delivery.settle(done(String::new())).await.unwrap();
        }
        let waited = published.elapsed();
        assert!(waited + Duration::from_secs(1) >= delay, "{waited:?}");
    }
}
