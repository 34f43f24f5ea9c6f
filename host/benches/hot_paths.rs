//! The hot path in its units: what one task needs of each, with what each allocates. `cargo bench` runs
//! them; `scutwork bench` measures whole tasks.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that panics says why"
)]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use bytes::Bytes;
use divan::{AllocProfiler, Bencher, black_box};
use scutwork::broker::sqlite::{Sqlite, SqliteOptions};
use scutwork::broker::{Broker, Consumer, Delivery, Message, Record};
use scutwork::event::Observers;
use scutwork::outcome::{Failure, Outcome, Output};
use scutwork::plugin::embedded;
use scutwork::plugin::manifest::Manifest;
use scutwork::sandbox::baseline::Bare;
use scutwork::sandbox::{Cancel, Grants, Job, Limits, Prepared, Sandbox, SandboxSettings};
use scutwork::settlement::{Facts, Parking, Reply, ReplyKind, RetryPolicy, Settlement};
use scutwork::task::{Task, TaskRules};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [usize; 3] = [20, 1_000, 100_000];

fn main() {
    divan::main();
}

fn message(size: usize) -> Message {
    Message {
        plugin: Some("echo".into()),
        id: Some("0192f0c8-7d0a-7cc3-98c4-dc0c0c07398f".into()),
        headers: vec![("tenant".into(), "a".into())],
        body: vec![b'x'; size].into(),
        ..Message::default()
    }
}

fn rules() -> TaskRules {
    TaskRules {
        default_plugin: "dots".parse().unwrap(),
        max_payload: 1 << 20,
    }
}

#[divan::bench(args = SIZES)]
fn decode_a_task(bencher: Bencher<'_, '_>, size: usize) {
    let rules = rules();
    bencher
        .with_inputs(|| message(size))
        .bench_refs(|message| Task::decode(message, &rules).unwrap());
}

fn settle(outcome: &Outcome) -> Settlement {
    let facts = Facts {
        task: "0192f0c8-7d0a-7cc3-98c4-dc0c0c07398f",
        record: &Record::default(),
        plugin: Some("echo"),
        digest: Some("8b1a9953c4611296a827abf8c47804d7e6c49c6b97e2c0d4f0c8e5c1b4a0d0f1"),
        worker: "host:1",
        now: SystemTime::UNIX_EPOCH,
        dice: 0.5,
    };
    let parking = Parking {
        every: std::time::Duration::from_secs(30),
        ttl: std::time::Duration::from_secs(3600),
    };
    RetryPolicy::default().settle(outcome.clone(), parking, &facts)
}

#[divan::bench]
fn settle_what_is_done() -> Settlement {
    settle(black_box(&Outcome::Done(Output {
        content_type: None,
        body: Bytes::from_static(b"done"),
    })))
}

#[divan::bench]
fn settle_what_failed() -> Settlement {
    settle(black_box(&Outcome::Failed(Failure::Trapped {
        message: "wasm trap: unreachable".into(),
    })))
}

#[divan::bench]
fn parse_a_manifest() -> Manifest {
    const TEXT: &str = r#"
        [limits]
        memory = "64MiB"
        cpu = "10s"
        [retry]
        max_attempts = 5
        backoff = { initial = "15s", factor = 2.0, max = "1h", jitter = 0.1 }
        [http]
        allow = ["https://api.example.com"]
        [env]
        REGION = "eu"
        [run]
        concurrency = 8
    "#;
    Manifest::parse(black_box(TEXT), Path::new("thumb.toml"), &Limits::CEILING).unwrap()
}

struct House {
    sandbox: Arc<Sandbox>,
    echo: Prepared,
    bare: Bare,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let settings = SandboxSettings {
        slots: 4,
        ceiling: Limits {
            memory: 64 << 20,
            ..Limits::CEILING
        },
        threads: 1,
    };
    let sandbox = Arc::new(Sandbox::new(&settings).unwrap());
    House {
        echo: sandbox.prepare(embedded::echo()).unwrap(),
        bare: Bare::new(&sandbox, embedded::echo()).unwrap(),
        sandbox,
    }
});

/// As a worker's attempt runs it: on the guests' threads already.
#[divan::bench(args = SIZES)]
fn run_in_the_sandbox(bencher: Bencher<'_, '_>, size: usize) {
    let task = Task::decode(&mut message(size), &rules()).unwrap();
    let (grants, observers, cancel) = (
        Arc::<Grants>::default(),
        Observers::default(),
        Cancel::new(),
    );
    bencher.bench(|| {
        let job = Job {
            prepared: &HOUSE.echo,
            task: &task,
            grants: &grants,
            limits: Limits::default(),
            max_attempts: 5,
        };
        let run = HOUSE.sandbox.run(job, &observers, &cancel);
        HOUSE.sandbox.threads().block_on(run)
    });
}

#[divan::bench(args = SIZES)]
fn run_in_wasmtime_alone(bencher: Bencher<'_, '_>, size: usize) {
    let payload = vec![b'x'; size];
    bencher.bench(|| {
        let run = HOUSE.bare.run(&payload);
        HOUSE.sandbox.threads().block_on(run).unwrap()
    });
}

/// A message's whole way through the embedded queue: its record is encoded, claimed and decoded, and
/// deleted, each confirmed, in batches of 64.
#[divan::bench]
fn take_64_messages_through_the_embedded_queue(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::new(folder.path().join("queue.db"));
    let broker = Sqlite::open(options, Arc::new(|_| {})).unwrap();
    let queue = "work".parse().unwrap();
    let mut consumer = runtime.block_on(broker.consume(&queue, 64)).unwrap();
    bencher.bench_local(|| {
        runtime.block_on(async {
            let messages = vec![message(20); 64];
            broker.publish(&queue, messages, None).await.unwrap();
            let mut settled = 0;
            while settled < 64 {
                settled += take(&mut *consumer).await;
            }
        });
    });
    runtime.block_on(broker.close());
}

async fn take(consumer: &mut dyn Consumer) -> usize {
    let mut deliveries: Vec<Delivery> = Vec::new();
    consumer.next(&mut deliveries, 64).await;
    let count = deliveries.len();
    let settling = deliveries.into_iter().map(|delivery| {
        delivery.settle(Settlement::Done {
            reply: Reply {
                kind: ReplyKind::Done,
                task: String::new(),
                attempt: 1,
                content_type: None,
                body: Bytes::new(),
            },
        })
    });
    for settled in futures_util::future::join_all(settling).await {
        settled.unwrap();
    }
    count
}
