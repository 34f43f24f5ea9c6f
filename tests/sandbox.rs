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

const MIB: u64 = 1 << 20;

static NO_GRANTS: LazyLock<Arc<Grants>> = LazyLock::new(Arc::default);

fn sandbox(slots: usize) -> Sandbox {
    Sandbox::new(&SandboxSettings {
        slots,
        ceiling: Limits::CEILING,
        threads: 2,
    })
    .unwrap()
}

fn task(plugin: &str, payload: impl Into<Bytes>) -> Task {
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

async fn run(sandbox: &Sandbox, job: Job<'_>) -> Finished {
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
            assert_eq!(message, words);
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
async fn an_output_over_the_limit_is_refused_however_large_it_is() {
    for size in [MIB + 1, 5 * MIB, 20 * MIB] {
        let task = task("echo", vec![b'x'; size as usize]);
        let finished = run_alone(embedded::echo(), &task, Limits::default()).await;
        assert_limited(
            finished.outcome,
            Limit::Output,
            "output limit 1MiB reached in plugin `echo`; raise limits.output in echo.toml",
        );
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
async fn a_guest_that_computes_for_ever_is_ended_by_the_cpu_limit() {
    let limits = Limits {
        cpu: Duration::from_millis(200),
        ..Limits::default()
    };
    let finished = run_alone(embedded::endless(), &task("endless", ""), limits).await;
    assert_limited(
        finished.outcome,
        Limit::Cpu,
        "cpu limit 200ms reached in plugin `endless`; raise limits.cpu in endless.toml",
    );
    let cpu = finished.usage.cpu;
    assert!(
        cpu >= limits.cpu && cpu < Duration::from_millis(300),
        "{cpu:?}"
    );
}

#[tokio::test]
async fn a_guest_that_sleeps_is_ended_by_the_wall_clock() {
    let limits = Limits {
        timeout: Duration::from_millis(1500),
        ..Limits::default()
    };
    let finished = run_alone(embedded::dots(), &task("dots", "....."), limits).await;
    assert_limited(
        finished.outcome,
        Limit::Timeout,
        "timeout 1s 500ms reached in plugin `dots`; raise limits.timeout in dots.toml",
    );
    assert!(
        finished.usage.wall < Duration::from_secs(4),
        "{:?}",
        finished.usage
    );
}

#[tokio::test]
async fn a_guest_that_takes_memory_is_ended_by_the_memory_limit() {
    let finished = run_alone(embedded::glutton(), &task("glutton", ""), Limits::default()).await;
    assert_limited(
        finished.outcome,
        Limit::Memory,
        "memory limit 64MiB reached in plugin `glutton`; raise limits.memory in glutton.toml",
    );
    let peak = finished.usage.peak_memory;
    assert!((60 * MIB..=64 * MIB).contains(&peak), "{peak}");
}

#[tokio::test]
async fn the_ceiling_holds_and_says_so_whatever_a_jobs_own_limits_are() {
    let sandbox = Sandbox::new(&SandboxSettings {
        slots: 1,
        ceiling: Limits {
            memory: 8 * MIB,
            ..Limits::CEILING
        },
        threads: 1,
    })
    .unwrap();
    let glutton = sandbox.prepare(embedded::glutton()).unwrap();
    let finished = run(&sandbox, job(&glutton, &task("glutton", ""))).await;
    assert_limited(
        finished.outcome,
        Limit::Memory,
        "memory limit 8MiB reached in plugin `glutton`; it is this worker's highest limits.memory",
    );
}

#[tokio::test]
async fn nothing_is_reached_that_nobody_granted() {
    let sandbox = sandbox(1);
    let nosy = sandbox.prepare(embedded::nosy()).unwrap();
    let (notes, task) = (Notes::default(), task("nosy", ""));
    let mut random = Vec::new();
    for _ in 0..2 {
        let finished = sandbox
            .run(job(&nosy, &task), &notes.observers(), &Cancel::new())
            .await;
        let body = done(finished.outcome).body;
        let report = std::str::from_utf8(&body).unwrap();
        let (denied, number) = report.split_once("randomness: ").unwrap();
        assert_eq!(
            denied,
            "environment: 0\narguments: 0\nfiles: denied\ndirectory: denied\ntcp: denied\n\
             udp: denied\nnames: denied\nhttp: denied\nclock: true\n"
        );
        random.push(number.to_owned());
    }
    assert_ne!(random[0], random[1]);
    let refused = "Warn request to https://localhost/ refused: \
                   plugin `nosy` is granted no outgoing requests []";
    assert_eq!(notes.taken(), [refused, refused]);
}

#[tokio::test]
async fn short_runs_go_on_while_endless_ones_have_every_thread() {
    const RUNS: usize = 200;
    let sandbox = sandbox(8);
    let (echo, endless) = (
        sandbox.prepare(embedded::echo()).unwrap(),
        sandbox.prepare(embedded::endless()).unwrap(),
    );
    let (short, long) = (task("echo", "hello"), task("endless", ""));
    let neighbour = async || {
        let mut took = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            done(run(&sandbox, job(&echo, &short)).await.outcome);
            took.push(began.elapsed());
        }
        took.sort();
        took
    };
    let alone = neighbour().await;
    let mut hogs: futures_util::future::JoinAll<_> =
        futures_util::future::join_all((0..4).map(|_| run(&sandbox, job(&endless, &long))));
    let beside = tokio::select! {
        took = neighbour() => took,
        ended = &mut hogs => panic!("an endless run ended: {ended:?}"),
    };
    let p99 = RUNS * 99 / 100;
    eprintln!(
        "a short run's p99: {:?} alone, {:?} beside 4 endless ones",
        alone[p99], beside[p99]
    );
    assert!(
        beside[RUNS - 1] < Duration::from_secs(2),
        "{:?}",
        beside[RUNS - 1]
    );
}

#[tokio::test]
async fn a_dropped_run_ends_its_guest_and_frees_its_slot() {
    let sandbox = sandbox(4);
    let (echo, endless, dots) = (
        sandbox.prepare(embedded::echo()).unwrap(),
        sandbox.prepare(embedded::endless()).unwrap(),
        sandbox.prepare(embedded::dots()).unwrap(),
    );
    let (quick, long, sleepy) = (task("echo", "x"), task("endless", ""), task("dots", "."));
    for round in 0..10_000 {
        let (prepared, task) = match round % 50 {
            0 => (&endless, &long),
            1 | 2 => (&dots, &sleepy),
            _ => {
                done(run(&sandbox, job(&echo, &quick)).await.outcome);
                continue;
            }
        };
        let mut abandoned = std::pin::pin!(run(&sandbox, job(prepared, task)));
        // Polled until it has a slot, and left at some point or other of its life.
        for _ in 0..1 + round % 3 {
            assert!(is_pending(abandoned.as_mut()).await);
            tokio::task::yield_now().await;
        }
    }
    let all = (0..4).map(|_| run(&sandbox, job(&echo, &quick)));
    for finished in futures_util::future::join_all(all).await {
        done(finished.outcome);
    }
}

#[tokio::test]
async fn a_dropped_sandbox_leaves_no_run_behind() {
    let sandbox = Arc::new(sandbox(2));
    let endless = sandbox.prepare(embedded::endless()).unwrap();
    let alive = Arc::new(());
    struct Witness(#[allow(dead_code, reason = "it is held, not read")] Arc<()>);
    impl Observer for Witness {
        fn observe(&self, _: &Event<'_>) {}
    }
    let observers = Observers::new(vec![Box::new(Witness(Arc::clone(&alive)))]);
    {
        let long = task("endless", "");
        let cancel = Cancel::new();
        let mut running = std::pin::pin!(sandbox.run(job(&endless, &long), &observers, &cancel));
        assert!(is_pending(running.as_mut()).await);
    }
    drop(observers);
    drop(sandbox);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&alive) > 1 {
        assert!(Instant::now() < deadline, "the guest still runs");
        tokio::task::yield_now().await;
    }
}

const FITTING: &str = r#"(memory (export "memory") 1)
    (func (export "handle") (type $handle) (i32.const 256))"#;

#[tokio::test]
async fn what_no_toolchain_builds_is_held_to_the_same_limits() {
    let endless_start = r#"(memory (export "memory") 1)
        (func $spin (loop (br 0))) (start $spin)
        (func (export "handle") (type $handle) (i32.const 256))"#;
    let two_memories = r#"(memory (export "memory") 1) (memory $second 1)
        (func (export "handle") (type $handle)
          (drop (memory.grow (i32.const 600)))
          (if (i32.eq (memory.grow $second (i32.const 600)) (i32.const -1)) (then (unreachable)))
          (i32.const 256))"#;
    let big_minimum = r#"(memory (export "memory") 2000)
        (func (export "handle") (type $handle) (i32.const 256))"#;
    let big_table = r#"(memory (export "memory") 1) (table $table 0 funcref)
        (func (export "handle") (type $handle)
          (if (i32.eq (table.grow $table (ref.null func) (i32.const 60000)) (i32.const -1))
            (then (unreachable)))
          (i32.const 256))"#;
    let cases = [
        (
            endless_start,
            Limits {
                cpu: Duration::from_millis(100),
                ..Limits::default()
            },
            Limit::Cpu,
        ),
        (two_memories, Limits::default(), Limit::Memory),
        (big_minimum, Limits::default(), Limit::Memory),
        (
            big_table,
            Limits {
                memory: 300_000,
                ..Limits::default()
            },
            Limit::Memory,
        ),
    ];
    for (fields, limits, expected) in cases {
        let wasm = wat::plugin(fields);
        match run_alone(&wasm, &task("hand-made", ""), limits)
            .await
            .outcome
        {
            Outcome::Failed(Failure::LimitExceeded { limit, .. }) => {
                assert_eq!(limit, expected, "{fields}");
            }
            other => panic!("{other:?}\n{fields}"),
        }
        done(
            run_alone(&wat::plugin(FITTING), &task("hand-made", ""), limits)
                .await
                .outcome,
        );
    }
}

#[tokio::test]
async fn a_trap_names_itself_and_where_it_happened() {
    let deep = r#"(memory (export "memory") 1)
        (func $deeper (param i64) (result i64)
          (i64.add (call $deeper (local.get 0)) (call $deeper (local.get 0))))
        (func $handle (export "handle") (type $handle)
          (drop (call $deeper (i64.const 1))) (i32.const 256))"#;
    let message = trapped(
        run_alone(&wat::plugin(deep), &task("deep", ""), Limits::default())
            .await
            .outcome,
    );
    assert!(
        message.starts_with("call stack exhausted") || message.contains("stack"),
        "{message}"
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

#[test]
fn a_file_that_is_no_plugin_is_refused_in_plain_words() {
    let sandbox = sandbox(1);
    let dots = embedded::dots();
    let other_version = wat::assembled("scutwork:task/handler@0.9.0", FITTING);
    let other_world = wat::assembled("acme:jobs/worker@1.0.0", FITTING);
    let stranger = wat::stranger();
    let five_memories = wat::plugin(
        r#"(memory (export "memory") 1) (memory 1) (memory 1) (memory 1) (memory 1)
        (func (export "handle") (type $handle) (i32.const 256))"#,
    );
    let table: [(&str, &[u8], &[&str]); 13] = [
        ("nothing", b"", &["empty"]),
        ("text", b"hello", &["not WebAssembly"]),
        ("a web page", b"<!doctype html>", &["web page"]),
        ("text form", b"(component)", &["as text"]),
        ("three bytes", b"\0as", &["cut short"]),
        ("half a plugin", &dots[..dots.len() / 2], &["cut short"]),
        (
            "native code",
            b"\x7fELF\x02\x01\x01",
            &["precompiled", ".wasm"],
        ),
        (
            "a core module",
            b"\0asm\x01\0\0\0",
            &["core module", "wasm32-wasip2"],
        ),
        (
            "nonsense inside",
            b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\x0f",
            &["valid"],
        ),
        (
            "another version",
            &other_version,
            &["@0.1.0", "@0.9.0", "another version"],
        ),
        (
            "another world",
            &other_world,
            &["exports no `scutwork:task/handler@0.1.0`"],
        ),
        (
            "an import nobody has",
            &stranger,
            &["acme:secret/door@1.0.0", "does not provide"],
        ),
        ("five memories", &five_memories, &["more than", "5", "4"]),
    ];
    for (what, wasm, words) in table {
        let error: PrepareError = sandbox.prepare(wasm).unwrap_err();
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "{what}: {message}");
        }
        assert!(message.len() < 400, "{what}: {message}");
    }
}

#[tokio::test]
async fn without_address_space_for_a_pool_plugins_run_all_the_same() {
    let sandbox = Sandbox::new(&SandboxSettings {
        slots: 1 << 20,
        ceiling: Limits::CEILING,
        threads: 1,
    })
    .unwrap();
    assert!(sandbox.without_pool().is_some());
    let echo = sandbox.prepare(embedded::echo()).unwrap();
    done(run(&sandbox, job(&echo, &task("echo", "x"))).await.outcome);
    let glutton = sandbox.prepare(embedded::glutton()).unwrap();
    match run(&sandbox, job(&glutton, &task("glutton", "")))
        .await
        .outcome
    {
        Outcome::Failed(Failure::LimitExceeded {
            limit: Limit::Memory,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}
