//! Any bytes as what a plugin's memory holds where its answer should be.

#![no_main]

#[path = "../../support/wat.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod wat_plugins;

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use scutwork::event::Observers;
use scutwork::outcome::{Failure, Outcome};
use scutwork::sandbox::{Cancel, Job, Limits, Prepared, Sandbox, SandboxSettings};
use scutwork::task::Task;

static MIRROR: LazyLock<(Sandbox, Prepared)> = LazyLock::new(|| {
    let settings = SandboxSettings {
        slots: 1,
        ceiling: Limits::CEILING,
        threads: 1,
    };
    let sandbox = Sandbox::new(&settings).expect("there is memory for one");
    let mirror = wat_plugins::mirror();
    let prepared = sandbox.prepare(&mirror).expect("it is a plugin");
    (sandbox, prepared)
});

fuzz_target!(|answer: Vec<u8>| {
    let (sandbox, prepared) = &*MIRROR;
    let task = Task {
        id: "1".into(),
        plugin: "mirror".parse().expect("letters make a name"),
        payload: answer.into(),
        content_type: None,
        headers: Vec::new(),
        attempt: 1,
    };
    let grants = Arc::default();
    let job = Job {
        prepared,
        task: &task,
        limits: Limits::default(),
        grants: &grants,
        max_attempts: 1,
    };
    let observers = Observers::default();
    let cancel = Cancel::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let finished = runtime
        .expect("it needs nothing")
        .block_on(sandbox.run(job, &observers, &cancel));
    if let Outcome::Failed(Failure::Trapped { message }) = finished.outcome {
        assert!(!message.contains("the host panicked"), "{message}");
    }
});
