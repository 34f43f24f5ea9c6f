//! `scutwork queue`: what an operator sees of queues and does to them, each test on both brokers.

use std::time::Instant;

use crate::support::both_brokers::on_both_brokers;
use crate::support::program::{Ended, PATIENCE, Place};

on_both_brokers![
    "queue":
    a_paused_worker_says_so_and_takes_tasks_again_when_resumed,
    a_worker_that_starts_on_a_paused_queue_waits,
    purge_removes_what_was_chosen_and_says_how_many,
    purge_without_a_terminal_wants_a_yes,
    a_queue_that_is_not_there_exits_66,
    a_flooded_queue_leaves_slots_for_the_other_queues_of_its_worker,
    a_paused_queue_holds_up_no_other_of_its_worker,
];

/// Runs a command with the broker and the queue given.
fn on(place: &Place, broker: &str, queue: &str, arguments: &[&str]) -> Ended {
    let mut all = arguments.to_vec();
    all.extend(["--broker", broker, "--queue", queue]);
    place.run(&all)
}

fn status(place: &Place, broker: &str, queue: &str) -> serde_json::Value {
    let ended = on(place, broker, queue, &["queue", "status", "-o", "json"]).exits(0);
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// Counts are of another process, so all there is to do is to look again.
fn await_status(
    place: &Place,
    broker: &str,
    queue: &str,
    is_right: impl Fn(&serde_json::Value) -> bool,
) {
    let began = Instant::now();
    loop {
        let status = status(place, broker, queue);
        if is_right(&status) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
    }
}

fn a_paused_worker_says_so_and_takes_tasks_again_when_resumed(
    place: Place,
    broker: &str,
    queue: &str,
) {
    place.plugin("echo", "");
    let mut worker = place.worker(broker, queue, &[]);
    assert_eq!(status(&place, broker, queue)["paused"], false);
    on(&place, broker, queue, &["queue", "pause"]).exits(0);
    worker.wait_for("is paused");
    on(&place, broker, queue, &["submit", "echo", "x"]).exits(0);
    let paused = status(&place, broker, queue);
    assert_eq!(
        (&paused["paused"], &paused["ready"]),
        (&true.into(), &1.into())
    );
    let text = on(&place, broker, queue, &["queue", "status"])
        .exits(0)
        .text();
    assert!(text.contains("paused") && text.contains(queue), "{text}");
    on(&place, broker, queue, &["queue", "resume"]).exits(0);
    worker.wait_for("taking tasks");
    worker.wait_for("INFO done");
    assert_eq!(status(&place, broker, queue)["paused"], false);
}

fn a_worker_that_starts_on_a_paused_queue_waits(place: Place, broker: &str, queue: &str) {
    place.plugin("echo", "");
    on(&place, broker, queue, &["queue", "pause"]).exits(0);
    on(&place, broker, queue, &["submit", "echo", "x"]).exits(0);
    let mut worker = place.start(&["worker", "--broker", broker, "--queue", queue, "-v"]);
    worker.wait_for("is paused");
    // Stopping and starting again does not end a pause.
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("started"), "{said}");
    let mut worker = place.start(&["worker", "--broker", broker, "--queue", queue, "-v"]);
    worker.wait_for("is paused");
    assert_eq!(status(&place, broker, queue)["ready"], 1);
    on(&place, broker, queue, &["queue", "resume"]).exits(0);
    worker.wait_for("INFO done");
}

fn purge_removes_what_was_chosen_and_says_how_many(place: Place, broker: &str, queue: &str) {
    place.plugin("picky", "");
    let worker = place.worker(broker, queue, &[]);
    on(
        &place,
        broker,
        queue,
        &["submit", "picky", "no", "--count", "2", "--wait"],
    )
    .exits(1);
    worker.terminate();
    assert_eq!(worker.wait().0, Some(0));
    on(&place, broker, queue, &["submit", "dots", "--count", "3"]).exits(0);
    on(
        &place,
        broker,
        queue,
        &["submit", "dots", "--count", "4", "--delay", "10m"],
    )
    .exits(0);
    await_status(&place, broker, queue, |status| {
        (&status["ready"], &status["delayed"], &status["dead"]) == (&3.into(), &4.into(), &2.into())
    });
    let purge = |which: &[&str]| {
        let mut arguments = vec!["queue", "purge", "--yes"];
        arguments.extend(which);
        on(&place, broker, queue, &arguments).exits(0).text()
    };
    assert_eq!(purge(&[]), format!("removed 3 ready from {queue}\n"));
    assert_eq!(
        purge(&["--delayed", "--dead"]),
        format!("removed 4 delayed from {queue}\nremoved 2 dead from {queue}\n")
    );
    let left = status(&place, broker, queue);
    for part in ["ready", "delayed", "dead"] {
        assert_eq!(left[part], 0, "{left}");
    }
}

fn purge_without_a_terminal_wants_a_yes(place: Place, broker: &str, queue: &str) {
    on(&place, broker, queue, &["submit", "dots", "--count", "3"]).exits(0);
    on(&place, broker, queue, &["queue", "purge"])
        .exits(2)
        .says(&["3 ready", "--yes"]);
    assert_eq!(status(&place, broker, queue)["ready"], 3);
}

fn a_queue_that_is_not_there_exits_66(place: Place, broker: &str, queue: &str) {
    for command in [&["queue", "status"][..], &["queue", "purge", "--yes"]] {
        on(&place, broker, queue, command)
            .exits(66)
            .says(&[&format!("no queue `{queue}`")]);
    }
}

fn a_flooded_queue_leaves_slots_for_the_other_queues_of_its_worker(
    place: Place,
    broker: &str,
    queue: &str,
) {
    const FLOOD: u64 = 60;
    let calm = format!("{queue}.calm");
    place.file("scutwork.toml", "[worker]\nslots = 2\n");
    let flood = FLOOD.to_string();
    on(
        &place,
        broker,
        queue,
        &["submit", "dots", ".", "--count", &flood],
    )
    .exits(0);
    let mut worker = place.worker(broker, queue, &["--queue", &calm]);
    worker.wait_for("taking tasks");
    on(
        &place,
        broker,
        &calm,
        &["submit", "dots", "", "--count", "8", "--wait"],
    )
    .exits(0);
    let left = status(&place, broker, queue)["ready"].as_u64().unwrap();
    assert!(left > FLOOD / 2, "{left} of {FLOOD} were left");
}

fn a_paused_queue_holds_up_no_other_of_its_worker(place: Place, broker: &str, queue: &str) {
    let other = format!("{queue}.other");
    place.plugin("echo", "");
    on(&place, broker, queue, &["queue", "pause"]).exits(0);
    on(&place, broker, queue, &["submit", "echo", "x"]).exits(0);
    let _worker = place.worker(broker, queue, &["--queue", &other]);
    let ended = on(&place, broker, &other, &["submit", "echo", "y", "--wait"]).exits(0);
    assert_eq!(ended.text(), "y");
    assert_eq!(status(&place, broker, queue)["ready"], 1);
    on(&place, broker, queue, &["queue", "resume"]).exits(0);
    await_status(&place, broker, queue, |status| status["ready"] == 0);
}
