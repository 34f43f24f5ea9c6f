//! The power fails: what is on the disk at that instant holds every confirmed task.
//!
//! The disk is a file. What the file system keeps in memory is not in it, so a copy of the file is what a
//! machine finds when it starts again.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use scutwork::broker::Broker;
use scutwork::broker::sqlite::{Durability, Sqlite, SqliteOptions};

use super::disk::Disk;
use super::process::{Journal, Process, role, say};
use super::{PATIENCE, drain, identified, open, tasks};
use crate::broker_contract::printed;

const CUTS: usize = 6;

/// Publishes on a disk for ever, and notes beside it what was confirmed.
async fn produce(folder: &Path, durability: Durability) {
    let options = SqliteOptions {
        durability,
        ..SqliteOptions::new(std::fs::read_to_string(folder.join("queue")).unwrap())
    };
    let broker = Sqlite::open(options, printed()).unwrap();
    let mut confirmed = Journal::open(folder, "confirmed");
    say("ready");
    for number in 0.. {
        let id = number.to_string();
        let message = identified(&id);
        broker.publish(&tasks(), vec![message], None).await.unwrap();
        confirmed.note(&[id]);
    }
}

/// Cuts the power now and then while a process publishes. Gives how many tasks were confirmed before the
/// last cut, and how many were not there after theirs.
async fn cut(test: &str, role: &str) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    Disk::format(&image);
    let disk = Disk::of_file(&image);
    let queue = disk.path().join("queue.db");
    std::fs::write(folder.path().join("queue"), queue.to_str().unwrap()).unwrap();
    let mut process = Process::start(test, role, folder.path());
    process.await_line("ready");
    let (mut confirmed, mut lost) = (Vec::new(), 0);
    for _ in 0..CUTS {
        // Some more first; then the point in time is the test.
        let before = confirmed.len();
        until(|| Journal::read(folder.path(), "confirmed").len() > before + 5).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..60))).await;
        process.signal(Signal::STOP);
        until(|| is_stopped(process.id())).await;
        confirmed = Journal::read(folder.path(), "confirmed");
        let found = folder.path().join("found");
        std::fs::copy(&image, &found).unwrap();
        process.signal(Signal::CONT);
        let disk = Disk::of_file(&found);
        let broker = open(&disk.path().join("queue.db")).unwrap();
        let left = drain(&broker).await;
        broker.close().await;
        lost += confirmed.iter().filter(|id| !left.contains(*id)).count();
    }
    drop(process);
    (confirmed.len(), lost)
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap();
}

/// Whether every thread of a process stands still; one that waits for the disk does not yet.
fn is_stopped(id: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    threads.into_iter().all(|thread| {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status"));
        status.is_ok_and(|status| status.contains("State:\tT"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_no_confirmed_task_with_full_durability() {
    if let Some((_, folder)) = role() {
        return produce(&folder, Durability::Full).await;
    }
    let test = "sqlite::power::a_power_cut_loses_no_confirmed_task_with_full_durability";
    let (confirmed, lost) = cut(test, "full").await;
    eprintln!("full durability: {lost} lost of {confirmed} confirmed, with {CUTS} power cuts");
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_leaves_a_sound_queue_with_normal_durability() {
    if let Some((_, folder)) = role() {
        return produce(&folder, Durability::Normal).await;
    }
    let test = "sqlite::power::a_power_cut_leaves_a_sound_queue_with_normal_durability";
    let (confirmed, lost) = cut(test, "normal").await;
    eprintln!("normal durability: {lost} lost of {confirmed} confirmed, with {CUTS} power cuts");
}
