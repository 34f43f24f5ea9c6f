//! WASI commands as plugins: the task on stdin, the output on stdout, the outcome by the exit code.

use std::sync::Arc;

use bytes::Bytes;
use scutwork::event::Observers;
use scutwork::outcome::{Failure, Limit, Outcome, Output};
use scutwork::sandbox::command::{CommandSettings, ExitCodes};
use scutwork::sandbox::{Cancel, Grants, Job, Limits, Sandbox, SandboxSettings};
use scutwork::task::Task;

use crate::support::wat;

const MIB: u64 = 1 << 20;

const CAT: &str = "(call $copy (i32.const 1))";

fn task(payload: impl Into<Bytes>) -> Task {
    Task {
        id: "task-1".into(),
        plugin: "cat".parse().unwrap(),
        payload: payload.into(),
        content_type: Some("text/plain".into()),
        headers: vec![("Trace-Id".into(), "abc".into())],
        attempt: 2,
    }
}

async fn run(wasm: &[u8], task: &Task, command: CommandSettings, limits: Limits) -> Outcome {
    let sandbox = Sandbox::new(&SandboxSettings {
        slots: 1,
        ceiling: Limits::CEILING,
        threads: 1,
    })
    .unwrap();
    let prepared = sandbox.prepare(wasm).unwrap();
    let grants = Arc::new(Grants {
        command,
        ..Grants::default()
    });
    let job = Job {
        prepared: &prepared,
        task,
        grants: &grants,
        limits,
        max_attempts: 5,
    };
    sandbox
        .run(job, &Observers::default(), &Cancel::new())
        .await
        .outcome
}

async fn run_plainly(body: &str, payload: impl Into<Bytes>) -> Outcome {
    let (command, limits) = (CommandSettings::default(), Limits::default());
    run(&wat::command(body), &task(payload), command, limits).await
}

fn done(outcome: Outcome) -> Output {
    match outcome {
        Outcome::Done(output) => output,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_limited(outcome: Outcome, expected: Limit) {
    match outcome {
        Outcome::Failed(Failure::LimitExceeded { limit, message }) => {
            assert_eq!(limit, expected, "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_command_has_the_payload_on_stdin_and_its_output_on_stdout_byte_for_byte() {
    let cat = wat::command(CAT);
    let any: Vec<u8> = (0..5 * MIB).map(|n| (n * n % 251) as u8).collect();
    for payload in [Vec::new(), b"one line".to_vec(), any] {
        let settings = CommandSettings {
            content_type: Some("application/x-copy".into()),
            ..CommandSettings::default()
        };
        let limits = Limits {
            output: 6 * MIB,
            ..Limits::default()
        };
        let output = done(run(&cat, &task(payload.clone()), settings, limits).await);
        assert!(output.body == payload, "{} bytes", output.body.len());
        assert_eq!(output.content_type.as_deref(), Some("application/x-copy"));
    }
}

#[tokio::test]
async fn a_command_has_the_task_in_variables_and_its_arguments_from_the_manifest() {
    let tell = "
        (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call $args_get (i32.const 1024) (i32.const 4096)))
        (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 20)))
        (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call $environ_get (i32.const 1024) (i32.const 4096)))
        (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 20)))";
    let settings = CommandSettings {
        args: vec!["--fast".into(), "a b".into()],
        ..CommandSettings::default()
    };
    let told = run(&wat::command(tell), &task(""), settings, Limits::default()).await;
    let told = String::from_utf8(done(told).body.to_vec()).unwrap();
    let words: Vec<&str> = told.split_terminator('\0').collect();
    let expected = [
        "cat",
        "--fast",
        "a b",
        "SCUTWORK_ATTEMPT=2",
        "SCUTWORK_CONTENT_TYPE=text/plain",
        "SCUTWORK_HEADER_TRACE_ID=abc",
        "SCUTWORK_ID=task-1",
        "SCUTWORK_MAX_ATTEMPTS=5",
        "SCUTWORK_PLUGIN=cat",
        "SCUTWORK_TIMEOUT_MS=300000",
    ];
    assert_eq!(words, expected);
}

#[tokio::test]
async fn a_commands_exit_says_what_becomes_of_its_task() {
    let exit = |code: u32| format!("{CAT} (call $exit (i32.const {code}))");
    assert_eq!(done(run_plainly(&exit(0), "kept").await).body, "kept");
    match run_plainly(&exit(75), "lost").await {
        Outcome::Failed(Failure::PluginError { code, delay, .. }) => {
            assert_eq!((code.as_str(), delay), ("exit-75", None));
        }
        other => panic!("{other:?}"),
    }
    // From 126 on too, which WASI once called invalid.
    for code in [1, 76, 126, 255] {
        match run_plainly(&exit(code), "lost").await {
            Outcome::Failed(Failure::Rejected { code: told, .. }) => {
                assert_eq!(told, format!("exit-{code}"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_manifest_can_give_exit_codes_another_meaning() {
    let settings = CommandSettings {
        exit: ExitCodes {
            done: [3].into(),
            retry: [111].into(),
            reject: [0].into(),
        },
        ..CommandSettings::default()
    };
    let run = async |code: u32| {
        let wasm = wat::command(&format!("{CAT} (call $exit (i32.const {code}))"));
        run(&wasm, &task("kept"), settings.clone(), Limits::default()).await
    };
    assert_eq!(done(run(3).await).body, "kept");
    let outcome = run(111).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::PluginError { .. })),
        "{outcome:?}"
    );
    let outcome = run(0).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::Rejected { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_reject_says_what_the_command_wrote_to_stderr_last() {
    let outcome = run_plainly(
        "(call $copy (i32.const 2)) (call $exit (i32.const 2))",
        "line 7: no such key\n",
    )
    .await;
    match outcome {
        Outcome::Failed(failure @ Failure::Rejected { .. }) => {
            assert_eq!(failure.to_string(), "exit-2: line 7: no such key");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_command_that_traps_or_meets_a_limit_fails_as_any_plugin_does() {
    match run_plainly("(call $copy (i32.const 2)) unreachable", "why\n").await {
        Outcome::Failed(Failure::Trapped { message }) => {
            assert!(message.contains("unreachable"), "{message}");
            assert!(message.ends_with("stderr:\nwhy"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let endless =
        "(loop $again (call $write (i32.const 1) (i32.const 0) (i32.const 65536)) (br $again))";
    assert_limited(run_plainly(endless, "").await, Limit::Output);
    let greedy = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (call $exit (i32.const 1))";
    assert_limited(run_plainly(greedy, "").await, Limit::Memory);
    let spinning = wat::command("(loop $again (br $again))");
    let limits = Limits {
        cpu: std::time::Duration::from_millis(50),
        ..Limits::default()
    };
    let outcome = run(&spinning, &task(""), CommandSettings::default(), limits).await;
    assert_limited(outcome, Limit::Cpu);
}

#[tokio::test]
async fn a_component_that_exports_run_is_a_command() {
    // Older and newer than the host's own.
    for export in ["wasi:cli/run@0.2.0", "wasi:cli/run@0.2.99"] {
        let run = async |is_ok| {
            let wasm = wat::run_component(export, is_ok);
            let (command, limits) = (CommandSettings::default(), Limits::default());
            run(&wasm, &task(""), command, limits).await
        };
        assert_eq!(done(run(true).await).body, "");
        match run(false).await {
            Outcome::Failed(Failure::Rejected { code, .. }) => assert_eq!(code, "exit-1"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_module_that_is_no_command_is_refused_in_plain_words() {
    let sandbox = Sandbox::new(&SandboxSettings {
        slots: 1,
        ceiling: Limits::CEILING,
        threads: 1,
    })
    .unwrap();
    let table: [(&str, &[&str]); 5] = [
        (
            "(module)",
            &["exports no function `_start`", "wasm32-wasip1"],
        ),
        (
            r#"(module (func (export "_start") (param i32)))"#,
            &["exports no function `_start`"],
        ),
        (
            r#"(module (import "wbg" "__wbg_log" (func)))"#,
            &["`__wbg_log` from `wbg`", "wasm-bindgen"],
        ),
        (
            r#"(module (import "gojs" "runtime.wasmExit" (func)))"#,
            &["GOOS=wasip1"],
        ),
        (
            r#"(module (import "wasi_snapshot_preview1" "sock_teleport" (func))
                (func (export "_start")))"#,
            &["sock_teleport", "does not provide"],
        ),
    ];
    for (text, words) in table {
        let error = sandbox
            .prepare(&::wat::parse_str(text).unwrap())
            .unwrap_err();
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
