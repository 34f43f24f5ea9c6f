//! What the hot path costs in numbers that no busy machine changes: allocations. The binary is apart from
//! the other tests because the count is of the whole process, and its tests take turns for the same reason.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that panics says why, and figures are printed"
)]

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, Message};
use scutwork::event::{Event, Observer, Observers};
use scutwork::outcome::Outcome;
use scutwork::plugin::registry::{Directory, RegistrySettings};
use scutwork::plugin::{Registry, embedded};
use scutwork::sandbox::baseline::Bare;
use scutwork::sandbox::{Cancel, Grants, Job, Limits, Sandbox, SandboxSettings};
use scutwork::settlement::{Parking, Settlement};
use scutwork::task::{Task, TaskRules};
use scutwork::worker::prefetch::Prefetch;
use scutwork::worker::{StopSwitch, Worker, WorkerSettings};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::{Mutex, mpsc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Whoever counts holds it.
static TURN: Mutex<()> = Mutex::const_new(());

/// What a task may allocate on its way through a worker and the embedded queue, its run included: 56 when
/// this was written, and a few for the batches that a loaded machine makes smaller.
const TASK: f64 = 62.0;

fn sandbox() -> Arc<Sandbox> {
    let settings = SandboxSettings {
        slots: 32,
        ceiling: Limits {
            memory: 64 << 20,
            ..Limits::CEILING
        },
        threads: 1,
    };
    Arc::new(Sandbox::new(&settings).unwrap())
}

/// Allocations since, for each of so many.
fn each(region: &Region<'_, System>, count: u32) -> f64 {
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / f64::from(count)
}

#[test]
fn a_run_allocates_no_more_than_wasmtime_alone_with_a_wasi_context() {
    const RUNS: u32 = 1_000;
    let _turn = TURN.blocking_lock();
    let sandbox = sandbox();
    let echo = sandbox.prepare(embedded::echo()).unwrap();
    let bare = Bare::new(&sandbox, embedded::echo()).unwrap();
    let task = Task {
        id: "0192f0c8-7d0a-7cc3-98c4-dc0c0c07398f".into(),
        plugin: "echo".parse().unwrap(),
        payload: vec![b'x'; 20].into(),
        content_type: None,
        headers: Vec::new(),
        attempt: 1,
    };
    let (here, grants) = (sandbox.clone(), Arc::<Grants>::default());
    let counted = sandbox.threads().spawn(async move {
        let (observers, cancel) = (Observers::default(), Cancel::new());
        let count = async |runs: u32| {
            let region = Region::new(ALLOCATOR);
            for _ in 0..runs {
                let job = Job {
                    prepared: &echo,
                    task: &task,
                    grants: &grants,
                    limits: Limits::default(),
                    max_attempts: 5,
                };
                let finished = here.run(job, &observers, &cancel).await;
                assert!(matches!(finished.outcome, Outcome::Done(_)), "{finished:?}");
            }
            each(&region, runs)
        };
        // What is made once is made in the first runs.
        count(10).await;
        let ours = count(RUNS).await;
        let count = async |runs: u32| {
            let region = Region::new(ALLOCATOR);
            for _ in 0..runs {
                bare.run(&task.payload).await.unwrap();
            }
            each(&region, runs)
        };
        count(10).await;
        (ours, count(RUNS).await)
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ours, bare) = runtime.block_on(counted).unwrap();
    eprintln!("allocations of a run: {ours} in the sandbox, {bare} in wasmtime alone");
    assert!(bare > 0.0, "nothing is counted");
    assert!(
        ours <= bare,
        "a run allocates {ours} times, wasmtime alone {bare} times"
    );
}

/// Says when a task is settled.
struct Settled(mpsc::UnboundedSender<()>);

impl Observer for Settled {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Settled { settlement, .. } = event {
            assert!(matches!(settlement, Settlement::Done { .. }), "{event:?}");
            self.0.send(()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_allocates_no_more_on_its_way_than_it_did() {
    const TASKS: u32 = 4_000;
    const WARM: u32 = 1_000;
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::write(plugins.join("echo.wasm"), embedded::echo()).unwrap();
    let (sender, mut settled) = mpsc::unbounded_channel();
    let observers = Observers::new(vec![Box::new(Settled(sender))]);
    let sandbox = sandbox();
    let settings = RegistrySettings {
        directory: Directory::Named(plugins),
        ..RegistrySettings::default()
    };
    let registry = Registry::open(settings, sandbox.clone(), observers.clone()).unwrap();
    let options = SqliteOptions::new(folder.path().join("queue.db"));
    let broker = Arc::new(Sqlite::open(options, Arc::new(|_| {})).unwrap());
    let queue = "work".parse().unwrap();
    let message = Message {
        plugin: Some("echo".into()),
        id: Some("0192f0c8-7d0a-7cc3-98c4-dc0c0c07398f".into()),
        body: vec![b'x'; 20].into(),
        ..Message::default()
    };
    let messages = vec![message; (WARM + TASKS) as usize];
    broker.publish(&queue, messages, None).await.unwrap();
    let settings = WorkerSettings {
        name: "counted".into(),
        queues: vec![queue],
        slots: 32,
        prefetch: Prefetch::Automatic,
        grace: Duration::from_secs(30),
        rules: TaskRules {
            default_plugin: "dots".parse().unwrap(),
            max_payload: 1 << 20,
        },
        parking: Parking {
            every: Duration::from_secs(30),
            ttl: Duration::from_secs(3600),
        },
    };
    let (switch, stop) = StopSwitch::new();
    let worker = Worker::new(
        settings,
        broker,
        Arc::new(registry),
        sandbox,
        observers,
        stop,
    );
    let worker = tokio::spawn(worker.run());
    for _ in 0..WARM {
        settled.recv().await.unwrap();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..TASKS {
        settled.recv().await.unwrap();
    }
    let allocated = each(&region, TASKS);
    switch.drain();
    worker.await.unwrap().unwrap();
    eprintln!("allocations of a task, its run included: {allocated}");
    assert!(
        allocated <= TASK,
        "a task allocates {allocated} times on its way"
    );
}
