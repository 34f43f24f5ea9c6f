//! One run: outcomes, limits and neighbours.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scutwork::event::{Event, Level, Observer, Observers};
use scutwork::outcome::{Failure, Limit, Outcome, Output};
use scutwork::plugin::embedded;
use scutwork::sandbox::{
    Cancel, Finished, Grants, Job, Limits, PrepareError, Prepared, Sandbox, SandboxSettings,
};
use scutwork::task::Task;
use tokio::sync::Notify;

use crate::support::wat;

mod limits;
mod neighbours;
mod refusals;

const MIB: u64 = 1 << 20;

static NO_GRANTS: LazyLock<Arc<Grants>> = LazyLock::new(Arc::default);

pub(crate) fn sandbox(slots: usize) -> Sandbox {
    Sandbox::new(&SandboxSettings {
        slots,
        ceiling: Limits::CEILING,
        threads: 2,
    })
    .unwrap()
}

pub(crate) fn task(plugin: &str, payload: impl Into<Bytes>) -> Task {
    Task {
        id: "task-1".into(),
        plugin: plugin.parse().unwrap(),
        payload: payload.into(),
        content_type: None,
        headers: Vec::new(),
        attempt: 1,
    }
}

fn job<'a>(prepared: &'a Prepared, task: &'a Task) -> Job<'a> {
    Job {
        prepared,
        task,
        grants: &NO_GRANTS,
        limits: Limits::default(),
        max_attempts: 5,
    }
}

pub(crate) async fn run(sandbox: &Sandbox, job: Job<'_>) -> Finished {
    sandbox
        .run(job, &Observers::default(), &Cancel::new())
        .await
}

/// One run of a plugin in a sandbox of its own.
async fn run_alone(wasm: &[u8], task: &Task, limits: Limits) -> Finished {
    let sandbox = sandbox(1);
    let prepared = sandbox.prepare(wasm).unwrap();
    let job = Job {
        limits,
        ..job(&prepared, task)
    };
    run(&sandbox, job).await
}

fn done(outcome: Outcome) -> Output {
    match outcome {
        Outcome::Done(output) => output,
        other => panic!("{other:?}"),
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_limited(outcome: Outcome, expected: Limit, words: &str) {
    match outcome {
        Outcome::Failed(Failure::LimitExceeded { limit, message }) => {
            assert_eq!(limit, expected);
            let first = message.lines().next();
            assert_eq!(first, Some(words));
            assert!(message.contains("\nused: wall "), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn trapped(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(Failure::Trapped { message }) => message,
        other => panic!("{other:?}"),
    }
}

/// Polls once.
async fn is_pending(mut future: Pin<&mut impl Future>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

/// Keeps what it observes as text, and says so.
#[derive(Clone, Default)]
struct Notes(Arc<(Mutex<Vec<String>>, Notify)>);

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        let note = match event {
            Event::Progress {
                run,
                done,
                total,
                message,
            } => {
                format!("{} {} {done}/{total} {message}", run.task, run.plugin)
            }
            Event::Line {
                level,
                message,
                fields,
                ..
            } => format!("{level:?} {message} {fields:?}"),
            other => format!("{other:?}"),
        };
        self.0.0.lock().unwrap().push(note);
        self.0.1.notify_one();
    }
}

impl Notes {
    fn taken(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    async fn next(&self) {
        self.0.1.notified().await;
    }

    fn observers(&self) -> Observers {
        Observers::new(vec![Box::new(self.clone())])
    }
}

#[tokio::test]
async fn dots_takes_a_second_a_dot_and_says_how_far_it_is() {
    let sandbox = sandbox(1);
    let dots = sandbox.prepare(embedded::dots()).unwrap();
    let notes = Notes::default();
    let task = task("dots", "a.b.");
    let finished = sandbox
        .run(job(&dots, &task), &notes.observers(), &Cancel::new())
        .await;
    let output = done(finished.outcome);
    assert_eq!(output.content_type.as_deref(), Some("text/plain"));
    assert_eq!(&output.body[..], b"slept 2 s for 2 dots");
    assert_eq!(
        notes.taken(),
        ["task-1 dots 1/2 sleeping", "task-1 dots 2/2 sleeping"]
    );
    assert!(
        finished.usage.wall >= Duration::from_secs(2),
        "{:?}",
        finished.usage
    );
    assert!(
        finished.usage.cpu < Duration::from_secs(1),
        "{:?}",
        finished.usage
    );
    assert!(
        finished.usage.peak_memory >= 64 << 10,
        "{:?}",
        finished.usage
    );
}

#[tokio::test]
async fn a_plugin_that_stops_because_it_was_asked_to_is_interrupted() {
    let sandbox = sandbox(1);
    let dots = sandbox.prepare(embedded::dots()).unwrap();
    let notes = Notes::default();
    let (task, observers, cancel) = (task("dots", "......"), notes.observers(), Cancel::new());
    let (finished, ()) = tokio::join!(sandbox.run(job(&dots, &task), &observers, &cancel), async {
        notes.next().await;
        cancel.cancel();
    });
    assert!(
        matches!(finished.outcome, Outcome::Interrupted),
        "{:?}",
        finished.outcome
    );
    assert!(notes.taken().len() < 6);
}

#[tokio::test]
async fn echo_returns_every_byte_whatever_they_are() {
    let sandbox = sandbox(1);
    let echo = sandbox.prepare(embedded::echo()).unwrap();
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(65_537)
        .collect();
    for payload in [Vec::new(), random, vec![0xff; 10 * MIB as usize]] {
        let mut task = task("echo", payload.clone());
        task.content_type = Some("application/x-anything".into());
        let limits = Limits {
            output: 11 * MIB,
            ..Limits::default()
        };
        let finished = run(
            &sandbox,
            Job {
                limits,
                ..job(&echo, &task)
            },
        )
        .await;
        let output = done(finished.outcome);
        assert!(
            output.body == payload,
            "{} of {} bytes",
            output.body.len(),
            payload.len()
        );
        assert_eq!(output.content_type, task.content_type);
    }
}

#[tokio::test]
async fn a_reject_carries_the_plugins_code_and_words() {
    let mut task = task("picky", "no good");
    task.headers = vec![("code".into(), "bad-taste".into())];
    let finished = run_alone(embedded::picky(), &task, Limits::default()).await;
    match failure(finished.outcome) {
        Failure::Rejected { code, message } => {
            assert_eq!((&*code, &*message), ("bad-taste", "no good"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn overlong_codes_and_messages_are_cut() {
    let mut task = task("picky", "ä".repeat(100_000));
    task.headers = vec![("code".into(), "c".repeat(10_000))];
    let finished = run_alone(embedded::picky(), &task, Limits::default()).await;
    match failure(finished.outcome) {
        Failure::Rejected { code, message } => {
            assert!(code.len() <= 64, "{}", code.len());
            assert!(message.len() <= 8 << 10, "{}", message.len());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_retry_carries_the_wait_that_the_plugin_asked_for_until_the_attempt_that_works() {
    let sandbox = sandbox(1);
    let flaky = sandbox.prepare(embedded::flaky()).unwrap();
    let mut task = task("flaky", "2 250");
    match failure(run(&sandbox, job(&flaky, &task)).await.outcome) {
        Failure::PluginError { code, delay, .. } => {
            assert_eq!(code, "not-yet");
            assert_eq!(delay, Some(Duration::from_millis(250)));
        }
        other => panic!("{other:?}"),
    }
    task.attempt = 2;
    let output = done(run(&sandbox, job(&flaky, &task)).await.outcome);
    assert_eq!(&output.body[..], b"worked at attempt 2");
}

#[tokio::test]
async fn lines_reach_those_who_watch_with_their_level_and_fields() {
    let sandbox = sandbox(1);
    let flaky = sandbox.prepare(embedded::flaky()).unwrap();
    let notes = Notes::default();
    let task = task("flaky", "2");
    sandbox
        .run(job(&flaky, &task), &notes.observers(), &Cancel::new())
        .await;
    let expected = format!("{:?} not yet {:?}", Level::Warn, [("attempt", "1")]);
    assert_eq!(notes.taken(), [expected]);
}

#[tokio::test]
async fn a_guests_last_words_on_stderr_reach_those_who_watch() {
    let sandbox = sandbox(1);
    let glutton = sandbox.prepare(embedded::glutton()).unwrap();
    let (notes, task) = (Notes::default(), task("glutton", ""));
    sandbox
        .run(job(&glutton, &task), &notes.observers(), &Cancel::new())
        .await;
    let lines = notes.taken();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("memory allocation of")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_trap_names_itself_and_where_it_happened() {
    let deep = r#"(memory (export "memory") 1)
        (func $deeper (param i64) (result i64)
          (i64.add (call $deeper (local.get 0)) (call $deeper (local.get 0))))
        (func $handle (export "handle") (type $handle)
          (drop (call $deeper (i64.const 1))) (i32.const 256))"#;
    let outcome = run_alone(&wat::plugin(deep), &task("deep", ""), Limits::default())
        .await
        .outcome;
    let message = failure(outcome.clone()).to_string();
    assert_limited(
        outcome,
        Limit::Stack,
        "stack limit 512KiB reached in plugin `deep`; \
         it is the same for all plugins: let it call less deeply",
    );
    assert!(message.contains("deeper"), "{message}");
    assert!(message.len() < 16 << 10, "{}", message.len());

    let abort = r#"(memory (export "memory") 1)
        (func $give_up unreachable)
        (func $handle (export "handle") (type $handle) (call $give_up) (i32.const 256))"#;
    let message = trapped(
        run_alone(&wat::plugin(abort), &task("abort", ""), Limits::default())
            .await
            .outcome,
    );
    assert!(
        message.contains("unreachable") && message.contains("give_up"),
        "{message}"
    );
}

const FITTING: &str = r#"(memory (export "memory") 1)
    (func (export "handle") (type $handle) (i32.const 256))"#;
