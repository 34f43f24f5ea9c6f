//! Random WebAssembly, thousands of files of it: whatever it is, the host neither fails nor hangs, and
//! the limits hold.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use scutwork::event::Observers;
use scutwork::outcome::{Failure, Outcome};
use scutwork::plugin::{Plugin, PluginRules};
use scutwork::sandbox::{Cancel, Job, Limits, Sandbox, SandboxSettings};

use crate::sandbox::task;

const FILES: u32 = 2_000;

/// What a run may have, and the operator's ceiling as well.
const SMALL: Limits = Limits {
    memory: 4 << 20,
    cpu: Duration::from_millis(20),
    timeout: Duration::from_millis(200),
    output: 4 << 10,
    log_lines: 10,
    log_bytes: 4 << 10,
    handles: 100,
    random: 64 << 10,
    http_requests: 0,
    http_body: 0,
    http_timeout: Duration::from_millis(100),
};

/// Longer than any run takes, even on a busy machine. Reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a file ended.
#[derive(Clone, Copy, Default)]
struct Tally {
    refused: u32,
    done: u32,
    failed: u32,
    limited: u32,
}

#[test]
fn whatever_random_file_is_dropped_in_the_host_stands_and_the_limits_hold() {
    let Some(smith) = std::env::var_os("SCUTWORK_TEST_SMITH") else {
        panic!("NOT RUN: SCUTWORK_TEST_SMITH names no program; use tests/run");
    };
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let count = number("SCUTWORK_SMITH", u64::from(FILES));
    let seed = number("SCUTWORK_SMITH_SEED", fastrand::u64(..));
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(smith)
        .arg(folder.path())
        .args([seed.to_string(), count.to_string()])
        .status()
        .unwrap();
    assert!(made.success(), "SCUTWORK_SMITH_SEED={seed}");
    let tally = run_all(folder.path(), seed);
    eprintln!(
        "{count} random files: {} refused, {} done, {} failed, {} limited; SCUTWORK_SMITH_SEED={seed}",
        tally.refused, tally.done, tally.failed, tally.limited
    );
    let ran = tally.done + tally.failed + tally.limited;
    assert!(
        u64::from(ran) > count / 10,
        "few ran: the generator makes nothing of use"
    );
}

fn run_all(folder: &Path, seed: u64) -> Tally {
    let sandbox = Arc::new(
        Sandbox::new(&SandboxSettings {
            slots: 2,
            ceiling: SMALL,
            threads: 2,
        })
        .unwrap(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut tally = Tally::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let ended = runtime.block_on(async {
            let run = run(&sandbox, &file);
            tokio::time::timeout(PATIENCE, run).await
        });
        let word = match ended {
            Ok(Ok(word)) => word,
            Ok(Err(wrong)) => panic!("{}: {wrong}; SCUTWORK_SMITH_SEED={seed}", file.display()),
            Err(_) => panic!("{} hangs; SCUTWORK_SMITH_SEED={seed}", file.display()),
        };
        *match word {
            Ended::Refused => &mut tally.refused,
            Ended::Done => &mut tally.done,
            Ended::Failed => &mut tally.failed,
            Ended::Limited => &mut tally.limited,
        } += 1;
    }
    tally
}

enum Ended {
    Refused,
    Done,
    Failed,
    Limited,
}

/// Drops one file in and gives it one task; an error is what must not be.
async fn run(sandbox: &Arc<Sandbox>, file: &Path) -> Result<Ended, String> {
    // Compiled in this process: a compiler that panics or hangs is to be seen here.
    let rules = PluginRules {
        ceiling: SMALL,
        ..PluginRules::default()
    };
    let plugin = match Plugin::from_file(file, Arc::clone(sandbox), &rules) {
        Ok(plugin) => plugin,
        Err(refused) if refused.reason.contains("compiler failed") => return Err(refused.reason),
        Err(refused) if refused.reason.len() > 2_000 => {
            return Err(format!("a refusal of {} bytes", refused.reason.len()));
        }
        Err(_) => return Ok(Ended::Refused),
    };
    let task = task("smith", "some payload");
    let job = Job {
        prepared: &plugin.prepared,
        task: &task,
        limits: plugin.manifest.limits,
        grants: &plugin.manifest.grants,
        max_attempts: 1,
    };
    let finished = sandbox
        .run(job, &Observers::default(), &Cancel::new())
        .await;
    if finished.usage.peak_memory > SMALL.memory {
        return Err(format!("it held {} bytes", finished.usage.peak_memory));
    }
    match finished.outcome {
        Outcome::Done(output) if output.body.len() as u64 > SMALL.output => {
            Err(format!("it gave {} bytes", output.body.len()))
        }
        Outcome::Done(_) => Ok(Ended::Done),
        Outcome::Failed(Failure::LimitExceeded { .. }) => Ok(Ended::Limited),
        Outcome::Failed(failure) if failure.to_string().contains("the host panicked") => {
            Err(failure.to_string())
        }
        Outcome::Failed(_) => Ok(Ended::Failed),
        Outcome::Interrupted => Err("it was interrupted by nobody".to_owned()),
    }
}
