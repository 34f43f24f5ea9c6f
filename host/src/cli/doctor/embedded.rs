//! Whether the embedded queue's file is sound, and lies where it can be.

use std::path::Path;

use super::disk;
use super::finding::Finding;
use crate::broker::sqlite::SqliteOptions;
use crate::broker::sqlite::examination::{Content, Examination};
use crate::units::show_size;

const CHECK: &str = "queue file";

/// Twice what the log is cut back to after a burst, in bytes.
const LARGE_LOG: u64 = 128 << 20;

pub(super) fn check(options: &SqliteOptions) -> Vec<Finding> {
    let examined = match Examination::of(&options.path) {
        Ok(examined) => examined,
        Err(error) => return vec![Finding::fail_as_told(CHECK, error)],
    };
    let path = examined.path.display();
    let mut findings = vec![match &examined.content {
        None => Finding::ok(
            CHECK,
            format!("there is no {path} yet; the first use makes it"),
        ),
        Some(content) if content.complaints.is_empty() => Finding::ok(
            CHECK,
            format!("{path} is sound, with {}", show_size(content.size)),
        ),
        Some(content) => Finding::fail(
            CHECK,
            format!("{path} is damaged: {}", content.complaints.join("; ")),
            "stop the workers and restore it from a backup, or move it away to start anew",
        ),
    }];
    findings.extend(examined.content.as_ref().and_then(log));
    let directory = examined.path.parent().unwrap_or(Path::new("/"));
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
        findings.push(Finding::fail(
            CHECK,
            format!("directory {} cannot be written", directory.display()),
            "grant this user the right to write it",
        ));
    }
    findings.extend(disk::check(directory));
    findings
}

/// Only a log that is too large is worth a line.
fn log(content: &Content) -> Option<Finding> {
    (content.log_size > LARGE_LOG).then(|| {
        Finding::warn(
            CHECK,
            format!(
                "its write-ahead log has grown to {}: something keeps reading an old state",
                show_size(content.log_size >> 20 << 20)
            ),
            "look for a program that holds the file open, and end it",
        )
    })
}
