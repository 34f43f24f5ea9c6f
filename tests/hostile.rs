//! Plugins that want to do harm, one a file in `tests/hostile`: each ends as its first lines say, while
//! a neighbour's tasks go on beside it, and nothing of it stays behind.

mod case;
mod leftovers;
mod neighbour;
mod queue;
mod server;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scutwork::event::{Event, Observer, Observers};
use scutwork::outcome::{Failure, Outcome};
use scutwork::plugin::Plugin;
use scutwork::sandbox::{Cancel, Job, Limits, Sandbox, SandboxSettings};

use self::case::Case;
use self::leftovers::Leftovers;
use self::neighbour::{Beside, Neighbour};
use crate::sandbox::task;
use crate::support::shelf;

const SLOTS: usize = 8;

/// Set in the process of its own, where nothing else opens files and starts threads.
const ALONE: &str = "SCUTWORK_TEST_HOSTILE_ALONE";

/// How long a plugin that ends early is run again and again.
const AT_LEAST: Duration = Duration::from_millis(50);

/// Tasks of the neighbour's that tell how long one takes when it is alone.
const RUNS_ALONE: usize = 500;

/// How a plugin ended, in one word, and all that was said of it.
struct Verdict {
    word: String,
    said: String,
}

#[test]
fn every_hostile_plugin_ends_as_it_should_while_its_neighbour_goes_on_and_leaves_nothing() {
    alone(corpus);
}

/// Runs the test that calls it once more, in a process of its own, and there does the work.
fn alone(work: fn()) {
    if std::env::var_os(ALONE).is_some() {
        return work();
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let alone = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads", "1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    // Written by hand, past the harness: it is a figure to be seen.
    eprintln!("{}", String::from_utf8_lossy(&alone.stderr));
    let text = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success(), "{text}");
    assert!(text.contains("1 passed"), "it did not run: {text}");
}

fn corpus() {
    let cases = case::all(server::start());
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let folder = case::folder();
    let sandbox = Arc::new(sandbox());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let neighbour = Neighbour::start(neighbour::in_sandbox(Arc::clone(&sandbox)));
    let alone = neighbour.next(RUNS_ALONE);
    let before = Leftovers::now();
    let (mut compiling, mut beside) = (Beside::default(), Beside::default());

    // All are dropped in first, so that what compilers leave behind is told from what runs do.
    let rules = shelf::rules();
    let mut wrong = Vec::new();
    let mut plugins = Vec::new();
    for case in &cases {
        let file = case.write(folder.path());
        match Plugin::from_file(&file, Arc::clone(&sandbox), &rules) {
            Ok(plugin) => plugins.push((case, plugin)),
            Err(refused) => wrong.extend(case.compare("refused", &refused.reason).err()),
        }
        compiling.add(&case.name, neighbour.taken());
    }
    let before = before.and_resident_now();
    for (case, plugin) in &plugins {
        let began = Instant::now();
        let verdict = loop {
            let verdict = runtime.block_on(attack(&sandbox, case, plugin));
            if began.elapsed() > AT_LEAST {
                break verdict;
            }
        };
        beside.add(&case.name, neighbour.taken());
        wrong.extend(case.compare(&verdict.word, &verdict.said).err());
    }
    let after = neighbour.next(RUNS_ALONE);
    eprintln!(
        "{} hostile plugins, {} of them run. A neighbour's task: alone {alone}; while they are compiled \
         {compiling}; beside them {beside}; afterwards {after}",
        cases.len(),
        plugins.len(),
    );
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
    // A plugin that serves keeps a file open, for the memory that its runs begin with.
    drop(plugins);
    runtime.block_on(every_slot_is_free(&sandbox));
    before.compare();
    let failed = neighbour.stop();
    assert!(
        failed.is_empty(),
        "the neighbour's tasks failed: {failed:?}"
    );
}

fn sandbox() -> Sandbox {
    Sandbox::new(&SandboxSettings {
        slots: SLOTS,
        ceiling: Limits::CEILING,
        threads: 2,
    })
    .unwrap()
}

/// Gives a plugin one task.
async fn attack(sandbox: &Sandbox, case: &Case, plugin: &Plugin) -> Verdict {
    let lines = Lines::default();
    let task = task(&case.name, case.payload.clone());
    let job = Job {
        prepared: &plugin.prepared,
        task: &task,
        limits: plugin.manifest.limits,
        grants: &plugin.manifest.grants,
        max_attempts: 3,
    };
    let observers = Observers::new(vec![Box::new(lines.clone())]);
    let finished = sandbox.run(job, &observers, &Cancel::new()).await;
    let (word, mut said) = match finished.outcome {
        Outcome::Done(output) => ("done", start(&output.body)),
        Outcome::Interrupted => ("interrupted", String::new()),
        Outcome::Failed(failure) => (failure.kind(), failure.to_string()),
    };
    assert!(said.len() < 24 << 10, "{}: {} bytes", case.name, said.len());
    for line in lines.0.lock().unwrap().iter() {
        said.push_str("\nlog: ");
        said.push_str(line);
    }
    Verdict {
        word: word.to_owned(),
        said,
    }
}

/// So much of an output as a verdict needs.
fn start(body: &[u8]) -> String {
    let start = &body[..body.len().min(1_000)];
    String::from_utf8_lossy(start).into_owned()
}

async fn every_slot_is_free(sandbox: &Sandbox) {
    let plugin = neighbour::echo(sandbox);
    let task = task("echo", "still there");
    let grants = Arc::default();
    let runs = (0..SLOTS).map(|_| {
        let job = Job {
            prepared: &plugin,
            task: &task,
            limits: Limits::default(),
            grants: &grants,
            max_attempts: 1,
        };
        crate::sandbox::run(sandbox, job)
    });
    for finished in futures_util::future::join_all(runs).await {
        assert!(
            matches!(finished.outcome, Outcome::Done(_)),
            "{:?}",
            finished.outcome
        );
    }
}

/// Keeps the first and the last lines that a plugin wrote.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<String>>>);

impl Observer for Lines {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Line { message, .. } = event {
            let mut lines = self.0.lock().unwrap();
            lines.truncate(20);
            lines.push(message.chars().take(200).collect());
        }
    }
}

/// A failure of the host's own is told by a panic in its words.
#[test]
fn no_verdict_is_a_panic_of_the_hosts() {
    let failure = Failure::Trapped {
        message: "the host panicked in a call that the plugin made: x".into(),
    };
    let case = Case::parse("any", ";; Does.\n;; expect: trapped\n(module)");
    assert!(case.compare(failure.kind(), &failure.to_string()).is_err());
}
