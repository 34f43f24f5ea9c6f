//! What a process holds, so that what stays behind shows.

use std::time::{Duration, Instant};

/// What the allocator and the pool may keep for later, in KiB. Most attackers take 64 MiB or more: one
/// of them left behind would show.
const SLACK: u64 = 48 << 10;

/// Threads for blocking calls end after some seconds without any.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Leftovers {
    files: usize,
    threads: usize,
    resident: u64,
}

impl Leftovers {
    pub(super) fn now() -> Leftovers {
        let entries = |folder: &str| std::fs::read_dir(folder).unwrap().count();
        Leftovers {
            files: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            resident: resident(),
        }
    }

    /// The same, but for memory as it is now.
    pub(super) fn and_resident_now(self) -> Leftovers {
        Leftovers {
            resident: resident(),
            ..self
        }
    }

    /// Fails if there is more now.
    pub(super) fn compare(&self) {
        let deadline = Instant::now() + PATIENCE;
        let now = loop {
            let now = Leftovers::now();
            let is_more = now.files > self.files
                || now.threads > self.threads
                || now.resident > self.resident + SLACK;
            if !is_more || Instant::now() > deadline {
                break now;
            }
            // Nothing tells when the runtime lets an idle thread go.
            std::thread::sleep(Duration::from_millis(100));
        };
        eprintln!("before the hostile plugins {self:?}, after them {now:?} (resident in KiB)");
        assert!(now.files <= self.files, "files stay open");
        assert!(now.threads <= self.threads, "threads stay");
        assert!(now.resident <= self.resident + SLACK, "memory stays");
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
