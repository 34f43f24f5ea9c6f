//! Each limit ends its run, and says which setting raises it.

use super::*;

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
        finished.usage.wall >= limits.timeout,
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
        "memory limit 8MiB reached in plugin `glutton`; it is this worker's highest: \
         raise limits.memory in scutwork.toml",
    );
}

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
    // What a pool refuses when it is loaded is refused here too, or when it runs.
    for (more, words) in [
        (
            "(memory 0)",
            "21 memories, and 4 is the most for any plugin",
        ),
        (
            "(table 0 funcref)",
            "20 tables, and 16 is the most for any plugin",
        ),
    ] {
        let many = wat::plugin(&format!("{FITTING}{}", more.repeat(20)));
        let refused = sandbox.prepare(&many).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let many = "(core instance (instantiate $empty))".repeat(20);
    let many = wat::whole(&format!(
        r#"(component
          (core module $main (;core;) (memory (export "memory") 0)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
            (func (export "handle") (type $handle) (i32.const 0)))
          (core module $empty)
          {many}
          (core instance $core (instantiate $main))
          (;handler;))"#
    ));
    let many = sandbox.prepare(&many).unwrap();
    let finished = run(&sandbox, job(&many, &task("many", ""))).await;
    assert_limited(
        finished.outcome,
        Limit::Instances,
        "instance limit 16 reached in plugin `many`; it is the same for all plugins: build it of fewer modules",
    );
}
