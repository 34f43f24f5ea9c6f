//! Workers that decide themselves how much they hold, and workers that are told: whole ones on real queues, each
//! test on both brokers.

use crate::support::both_brokers::on_both_brokers;
use crate::support::program::{Place, Running};

on_both_brokers![
    "prefetch":
    a_worker_with_short_tasks_holds_more_than_its_slots_and_finishes_them,
    what_an_operator_sets_stays_as_it_was_set,
    what_was_held_ahead_is_run_by_others_when_tasks_become_long,
    a_worker_that_is_killed_while_it_asks_for_more_loses_nothing,
    a_worker_that_is_stopped_while_it_asks_for_more_loses_nothing,
];

/// Slots of a worker: so few that there is much to ask for.
const FEW: [&str; 2] = ["--slots", "2"];

/// Far more than a worker holds.
const MANY: &str = "4000";

fn submit<'a>(broker: &'a str, queue: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["submit", "--broker", broker, "--queue", queue];
    arguments.extend(rest);
    arguments
}

/// Starts to submit many short tasks, and waits for them.
fn many(place: &Place, broker: &str, queue: &str) -> Running {
    place.plugin("echo", "");
    let arguments = ["echo", "x", "--count", MANY, "--wait"];
    place.start(&submit(broker, queue, &arguments))
}

fn all_done(mut tasks: Running) {
    tasks.wait_for(&format!("done {MANY}, retried 0, dead 0 of {MANY}"));
    assert_eq!(tasks.code(), Some(0));
}

fn a_worker_with_short_tasks_holds_more_than_its_slots_and_finishes_them(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let mut worker = place.worker(broker, queue, &FEW);
    let tasks = many(&place, broker, queue);
    worker.wait_for("prefetch=8");
    worker.wait_for("prefetch=32");
    all_done(tasks);
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    // On a machine that is busy enough, they become long and some go back, which is no attempt.
    assert!(!said.contains("attempt=2"), "{said}");
}

fn what_an_operator_sets_stays_as_it_was_set(place: Place, broker: &str, queue: &str) {
    let worker = place.worker(broker, queue, &["--slots", "2", "--prefetch", "3"]);
    all_done(many(&place, broker, queue));
    // Longer than anything waits for a slot before it may go back, where nobody said how many wait.
    let dots = ["dots", "....", "--count", "5", "--wait"];
    place.run(&submit(broker, queue, &dots)).exits(0);
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("prefetch changed"), "{said}");
    assert!(!said.contains("released"), "{said}");
}

fn what_was_held_ahead_is_run_by_others_when_tasks_become_long(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let mut first = place.worker(broker, queue, &FEW);
    let tasks = many(&place, broker, queue);
    first.wait_for("prefetch=32");
    all_done(tasks);
    // All of them go to the only worker there is, which runs two.
    let minutes = ".".repeat(120);
    let long = ["dots", &minutes, "--count", "12"];
    place.run(&submit(broker, queue, &long)).exits(0);
    for _ in 0..2 {
        while !first.wait_for("started").contains("plugin=\"dots\"") {}
    }
    let mut second = place.worker(broker, queue, &["--slots", "20"]);
    for _ in 0..10 {
        second.wait_for("started");
    }
    // This one first, which has room for what the other one runs.
    second.kill();
    first.kill();
    let (_, first) = first.wait();
    let (_, second) = second.wait();
    let begun = |said: &str| {
        let lines = said.lines().filter(|line| line.contains("started"));
        let dots: Vec<&str> = lines.filter(|line| line.contains("dots")).collect();
        assert!(dots.iter().all(|line| line.contains("attempt=1")), "{said}");
        dots.len()
    };
    assert_eq!((begun(&first), begun(&second)), (2, 10), "{first}");
}

fn a_worker_that_is_killed_while_it_asks_for_more_loses_nothing(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let mut first = place.worker(broker, queue, &FEW);
    let tasks = many(&place, broker, queue);
    first.wait_for("prefetch changed");
    first.kill();
    let _second = place.worker(broker, queue, &FEW);
    all_done(tasks);
}

fn a_worker_that_is_stopped_while_it_asks_for_more_loses_nothing(
    place: Place,
    broker: &str,
    queue: &str,
) {
    let mut first = place.worker(broker, queue, &FEW);
    let tasks = many(&place, broker, queue);
    first.wait_for("prefetch changed");
    first.terminate();
    let (code, said) = first.wait();
    assert_eq!(code, Some(0), "{said}");
    let _second = place.worker(broker, queue, &FEW);
    all_done(tasks);
}
