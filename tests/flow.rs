//! From delivery to settlement: whole workers on real queues, each test on both brokers.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::both_brokers::on_both_brokers;
use crate::support::program::Place;

on_both_brokers![
    "flow":
    submit_and_wait_prints_what_the_plugin_returned,
    submit_and_wait_counts_many_and_prints_each,
    a_task_that_dies_makes_submit_exit_1_with_the_cause,
    waiting_too_long_exits_75_and_the_task_goes_on,
    a_retry_comes_back_after_its_delay_and_then_succeeds,
    a_delayed_submit_is_not_early,
    a_worker_that_is_killed_loses_nothing_to_its_neighbour,
    a_stopping_worker_lets_its_tasks_finish,
    a_task_interrupted_by_shutdown_keeps_its_attempt,
    a_second_signal_ends_at_once_and_loses_nothing,
    a_task_waits_for_its_plugin_to_be_dropped_in,
    a_plugin_that_was_just_dropped_in_serves_the_next_message,
    a_changed_plugin_serves_the_next_message,
    a_runaway_is_killed_while_its_neighbours_go_on,
    a_plugin_runs_no_more_of_its_tasks_at_once_than_its_manifest_says,
    tasks_that_wait_for_a_full_plugin_keep_no_others_from_running,
    a_message_that_is_no_task_is_dead_lettered_and_the_worker_goes_on,
];

fn submit<'a>(broker: &'a str, queue: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["submit", "--broker", broker, "--queue", queue];
    arguments.extend(rest);
    arguments
}

fn submit_and_wait_prints_what_the_plugin_returned(place: Place, broker: &str, queue: &str) {
    place.plugin(
        "echo",
        "[limits]\noutput = \"16MiB\"\nmemory = \"256MiB\"\n",
    );
    let _worker = place.worker(broker, queue, &[]);
    let ended = place
        .run(&submit(broker, queue, &["echo", "hello", "--wait"]))
        .exits(0);
    assert_eq!(ended.text(), "hello");
    let binary: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let ended = place
        .run_with(&submit(broker, queue, &["echo", "-", "--wait"]), &binary)
        .exits(0);
    assert!(
        ended.stdout == binary,
        "{} bytes came back",
        ended.stdout.len()
    );
    let ended = place
        .run(&submit(broker, queue, &["echo", "", "--wait"]))
        .exits(0);
    assert!(ended.stdout.is_empty());
}

fn submit_and_wait_counts_many_and_prints_each(place: Place, broker: &str, queue: &str) {
    place.plugin("echo", "");
    let _worker = place.worker(broker, queue, &[]);
    let ended = place
        .run(&submit(
            broker,
            queue,
            &["echo", "x", "--count", "1000", "--wait"],
        ))
        .exits(0);
    assert_eq!(ended.text(), "x\n".repeat(1000));
    ended.says(&["done 1000, retried 0, dead 0 of 1000"]);
    let lines = "one\ntwo\n\nthree";
    let ended = place
        .run_with(
            &submit(broker, queue, &["echo", "-", "--each-line", "--wait"]),
            lines.as_bytes(),
        )
        .exits(0);
    let text = ended.text();
    let mut got: Vec<&str> = text.lines().collect();
    got.sort_unstable();
    assert_eq!(got, ["", "one", "three", "two"]);
}

fn a_task_that_dies_makes_submit_exit_1_with_the_cause(place: Place, broker: &str, queue: &str) {
    place.plugin("picky", "").plugin(
        "endless",
        "[limits]\ncpu = \"100ms\"\n[retry]\nmax_attempts = 1\n",
    );
    let _worker = place.worker(broker, queue, &[]);
    place
        .run(&submit(broker, queue, &["picky", "no", "--wait"]))
        .exits(1)
        .says(&["dead"]);
    place
        .run(&submit(broker, queue, &["endless", "", "--wait"]))
        .exits(1)
        .says(&["limits.cpu"]);
}

fn waiting_too_long_exits_75_and_the_task_goes_on(place: Place, broker: &str, queue: &str) {
    let mut worker = place.worker(broker, queue, &[]);
    place
        .run(&submit(
            broker,
            queue,
            &["dots", "..", "--wait", "--timeout", "500ms"],
        ))
        .exits(75)
        .says(&["500ms", "go on"]);
    worker.wait_for("INFO done");
}

fn a_retry_comes_back_after_its_delay_and_then_succeeds(place: Place, broker: &str, queue: &str) {
    place.plugin(
        "flaky",
        "[retry]\nbackoff = { initial = \"2s\", jitter = 0.0 }\n",
    );
    let mut worker = place.worker(broker, queue, &[]);
    let began = Instant::now();
    place
        .run(&submit(broker, queue, &["flaky", "2", "--wait"]))
        .exits(0);
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    worker.wait_for("retry");
    worker.wait_for("attempt=2");
}

fn a_delayed_submit_is_not_early(place: Place, broker: &str, queue: &str) {
    place.plugin("echo", "");
    let _worker = place.worker(broker, queue, &[]);
    let began = Instant::now();
    place
        .run(&submit(
            broker,
            queue,
            &["echo", "x", "--wait", "--delay", "2s"],
        ))
        .exits(0);
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
}

fn a_worker_that_is_killed_loses_nothing_to_its_neighbour(place: Place, broker: &str, queue: &str) {
    let few = ["--slots", "8"];
    let (mut first, mut second) = (
        place.worker(broker, queue, &few),
        place.worker(broker, queue, &few),
    );
    let mut tasks = place.start(&submit(
        broker,
        queue,
        &["dots", ".", "--count", "48", "--wait"],
    ));
    first.wait_for("started");
    second.wait_for("started");
    first.kill();
    tasks.wait_for("done 48, retried 0, dead 0 of 48");
    assert_eq!(tasks.wait().0, Some(0));
}

fn a_stopping_worker_lets_its_tasks_finish(place: Place, broker: &str, queue: &str) {
    let mut worker = place.worker(broker, queue, &[]);
    let mut task = place.start(&submit(broker, queue, &["dots", "..", "--wait"]));
    worker.wait_for("started");
    // What comes after the signal is for another worker.
    worker.terminate();
    worker.wait_for("no more tasks are taken");
    place.run(&submit(broker, queue, &["dots", "."])).exits(0);
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("INFO done").count(), 1, "{said}");
    assert_eq!(task.code(), Some(0));
    place.worker(broker, queue, &[]).wait_for("INFO done");
}

fn a_task_interrupted_by_shutdown_keeps_its_attempt(place: Place, broker: &str, queue: &str) {
    let mut worker = place.worker(broker, queue, &["--grace", "1s"]);
    let mut task = place.start(&submit(broker, queue, &["dots", "....", "--wait"]));
    worker.wait_for("started");
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("released"), "{said}");
    let mut other = place.worker(broker, queue, &[]);
    let done = other.wait_for("INFO done");
    assert!(done.contains("attempt=1"), "{done}");
    assert_eq!(task.code(), Some(0));
}

fn a_second_signal_ends_at_once_and_loses_nothing(place: Place, broker: &str, queue: &str) {
    let mut worker = place.worker(broker, queue, &["--grace", "1h"]);
    let mut task = place.start(&submit(broker, queue, &["dots", "...", "--wait"]));
    worker.wait_for("started");
    worker.terminate();
    worker.wait_for("no more tasks are taken");
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("done"), "{said}");
    let _other = place.worker(broker, queue, &[]);
    assert_eq!(task.code(), Some(0));
}

fn a_task_waits_for_its_plugin_to_be_dropped_in(place: Place, broker: &str, queue: &str) {
    let mut worker = place.worker(broker, queue, &[]);
    let mut task = place.start(&submit(broker, queue, &["echo", "early", "--wait"]));
    task.wait_for("parked: ");
    worker.wait_for("parked: no plugin `echo` here");
    let dropped = Instant::now();
    place.plugin("echo", "");
    let done = worker.wait_for("INFO done");
    assert!(done.contains("attempt=1"), "{done}");
    eprintln!("served {:?} after its plugin came", dropped.elapsed());
    assert_eq!(task.code(), Some(0));
}

fn a_plugin_that_was_just_dropped_in_serves_the_next_message(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let _worker = place.worker(broker, queue, &[]);
    place.plugin("echo", "");
    let ended = place
        .run(&submit(broker, queue, &["echo", "hi", "--wait"]))
        .exits(0);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("hi", ""));
}

fn a_changed_plugin_serves_the_next_message(place: Place, broker: &str, queue: &str) {
    place.plugin("echo", "");
    let mut worker = place.worker(broker, queue, &[]);
    let mut old = place.start(&submit(broker, queue, &["dots", "...", "--wait"]));
    worker.wait_for("started");
    // Another plugin under the name that is running, and under one that is not.
    place.file("plugins/dots.wasm", scutwork::plugin::embedded::echo());
    worker.wait_for("plugin replaced");
    let ended = place
        .run(&submit(broker, queue, &["dots", "...", "--wait"]))
        .exits(0);
    assert_eq!(ended.text(), "...", "the new version serves");
    assert_eq!(old.code(), Some(0), "the old version finishes");
    std::fs::remove_file(place.path().join("plugins/dots.wasm")).unwrap();
    worker.wait_for("plugin replaced");
    let ended = place
        .run(&submit(broker, queue, &["dots", ".", "--wait"]))
        .exits(0);
    assert!(ended.text().contains("1 dot"), "{}", ended.text());
}

fn a_runaway_is_killed_while_its_neighbours_go_on(place: Place, broker: &str, queue: &str) {
    let once = "[limits]\ncpu = \"1s\"\nmemory = \"8MiB\"\n[retry]\nmax_attempts = 1\n";
    place
        .plugin("echo", "")
        .plugin("endless", once)
        .plugin("glutton", once);
    let _worker = place.worker(broker, queue, &[]);
    let mut hogs = place.start(&submit(
        broker,
        queue,
        &["endless", "", "--count", "4", "--wait"],
    ));
    let mut eaters = place.start(&submit(
        broker,
        queue,
        &["glutton", "", "--count", "4", "--wait"],
    ));
    place
        .run(&submit(
            broker,
            queue,
            &["echo", "x", "--count", "200", "--wait"],
        ))
        .exits(0);
    hogs.wait_for("dead 4 of 4");
    eaters.wait_for("dead 4 of 4");
}

fn a_plugin_runs_no_more_of_its_tasks_at_once_than_its_manifest_says(
    place: Place,
    broker: &str,
    queue: &str,
) {
    place.file("plugins/dots.toml", "[run]\nconcurrency = 1\n");
    place.file("plugins/dots.wasm", scutwork::plugin::embedded::dots());
    let _worker = place.worker(broker, queue, &[]);
    let began = Instant::now();
    place
        .run(&submit(
            broker,
            queue,
            &["dots", ".", "--count", "3", "--wait"],
        ))
        .exits(0);
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

fn tasks_that_wait_for_a_full_plugin_keep_no_others_from_running(
    place: Place,
    broker: &str,
    queue: &str,
) {
    place.file("plugins/dots.toml", "[run]\nconcurrency = 1\n");
    place.file("plugins/dots.wasm", scutwork::plugin::embedded::dots());
    place.plugin("echo", "");
    let mut worker = place.worker(broker, queue, &["--slots", "2", "--prefetch", "4"]);
    // More than are delivered at once, each of a minute.
    let minutes = ".".repeat(60);
    place
        .run(&submit(broker, queue, &["dots", &minutes, "--count", "6"]))
        .exits(0);
    worker.wait_for("started");
    place
        .run(&submit(broker, queue, &["echo", "x", "--wait"]))
        .exits(0);
    worker.wait_for("INFO done");
    worker.kill();
    let (_, said) = worker.wait();
    assert_eq!(said.matches("INFO done").count(), 1, "{said}");
    assert_eq!(said.matches("started").count(), 2, "{said}");
}

fn a_message_that_is_no_task_is_dead_lettered_and_the_worker_goes_on(
    place: Place,
    broker: &str,
    queue: &str,
) {
    place.plugin("echo", "");
    place.file("scutwork.toml", "[worker]\nmax_payload = \"1KiB\"\n");
    let mut worker = place.worker(broker, queue, &[]);
    std::fs::remove_file(place.path().join("scutwork.toml")).unwrap();
    place.file("big", [b'x'; 2000]);
    place
        .run(&submit(broker, queue, &["echo", "@big", "--wait"]))
        .exits(1)
        .says(&["2000", "1024"]);
    worker.wait_for("bad-task");
    place
        .run(&submit(broker, queue, &["echo", "x", "--wait"]))
        .exits(0);
}

#[test]
fn up_serves_what_submit_puts_on_the_embedded_queue() {
    let place = Place::new();
    let mut up = place.start(&["up", "-v"]);
    up.wait_for("taking tasks");
    let ended = place.run(&["submit", "dots", "Hello.", "--wait"]).exits(0);
    assert!(ended.text().contains("1 dot"), "{}", ended.text());
    up.terminate();
    assert_eq!(up.wait().0, Some(0));
}

#[test]
fn a_worker_takes_tasks_from_several_queues() {
    let place = Place::new();
    place.plugin("echo", "");
    let mut up = place.start(&["up", "-v", "--queue", "a", "--queue", "b"]);
    up.wait_for("taking tasks");
    for queue in ["a", "b"] {
        let ended = place
            .run(&["submit", "echo", queue, "--wait", "--queue", queue])
            .exits(0);
        assert_eq!(ended.text(), queue);
    }
}

#[test]
fn ids_are_printed_and_can_be_chosen() {
    let place = Place::new();
    let ended = place.run(&["submit", "dots", ".", "--count", "3"]).exits(0);
    let text = ended.text();
    assert_eq!(text.lines().collect::<HashSet<_>>().len(), 3, "{text}");
    assert_eq!(
        place
            .run(&["submit", "dots", ".", "--id", "mine"])
            .exits(0)
            .text(),
        "mine\n"
    );
}
