//! Tasks that the broker delivers again to a worker that runs them or has run them: they are not run twice.

use crate::support::network::Network;
use crate::support::program::{Place, Running};
use crate::support::rabbitmq::shared_url;

fn submit<'a>(broker: &'a str, queue: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["submit", "--broker", broker, "--queue", queue];
    arguments.extend(rest);
    arguments
}

fn queue(test: &str) -> String {
    format!("redelivery.{test}.{}", scutwork::task::new_id())
}

/// Lets the worker go; it must have started one task once and settled it once. Gives all that it said.
fn assert_one_run(worker: Running, settled: &str) -> String {
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    for what in ["DEBUG started", settled] {
        assert_eq!(said.matches(what).count(), 1, "{what} in {said}");
    }
    said
}

/// A task whose hold is taken away while it runs, on a broker that is reached in two ways.
fn assert_one_run_when(taken: impl FnOnce(), place: &Place, worker_url: &str, url: &str) {
    let queue = queue("running");
    let mut worker = place.worker(worker_url, &queue, &[]);
    let mut task = place.start(&submit(url, &queue, &["dots", "..........", "--wait"]));
    worker.wait_for("DEBUG started");
    taken();
    worker.wait_for("delivered again while it runs");
    worker.wait_for("not settled: the hold on the delivery was lost");
    worker.wait_for("INFO done");
    assert_eq!(task.code(), Some(0));
    assert_one_run(worker, "INFO done");
}

#[test]
fn a_task_that_is_delivered_again_while_it_runs_is_run_once_on_rabbitmq() {
    let (place, url) = (Place::new(), shared_url());
    let network = Network::to(&url);
    assert_one_run_when(|| network.tear(), &place, &network.url(""), &url);
}

#[test]
fn a_task_that_is_delivered_again_while_it_runs_is_run_once_on_sqlite() {
    let (place, url) = (Place::new(), "sqlite:queue.db");
    // As a process does that takes the worker for dead.
    let take_over = || {
        let file = rusqlite::Connection::open(place.path().join("queue.db")).unwrap();
        file.busy_timeout(std::time::Duration::from_secs(30))
            .unwrap();
        file.execute_batch(
            "BEGIN IMMEDIATE;
             INSERT INTO waiting SELECT queue, rank, due, id, crashes + 1, attempt, parked_since, on_trial FROM held;
             DELETE FROM held;
             COMMIT;",
        )
        .unwrap();
    };
    assert_one_run_when(take_over, &place, url, url);
}

#[test]
fn a_task_that_ended_while_its_broker_was_away_is_not_run_again() {
    let (place, url) = (Place::new(), shared_url());
    let (network, queue) = (Network::to(&url), queue("away"));
    let mut worker = place.worker(&network.url(""), &queue, &[]);
    let mut task = place.start(&submit(&url, &queue, &["dots", "...", "--wait"]));
    worker.wait_for("DEBUG started");
    network.close();
    worker.wait_for("not settled: the hold on the delivery was lost");
    network.open();
    worker.wait_for("delivered again after it ran");
    assert_eq!(task.code(), Some(0));
    worker.wait_for("INFO done");
    assert_one_run(worker, "INFO done");
}

#[test]
fn a_task_whose_ack_was_cut_off_on_its_way_is_not_run_again() {
    let (place, url) = (Place::new(), shared_url());
    let (network, queue) = (Network::to(&url), queue("ack"));
    let mut worker = place.worker(&network.url(""), &queue, &[]);
    let mut task = place.start(&submit(&url, &queue, &["dots", "...", "--wait"]));
    worker.wait_for("DEBUG started");
    // The reply goes over the first connection, and the ack gets no further than here.
    network.keep_back(1);
    assert_eq!(task.code(), Some(0));
    network.tear_one(1);
    worker.wait_for("delivered again");
    worker.wait_for("INFO done");
    assert_one_run(worker, "INFO done");
}

#[test]
fn what_was_published_before_its_ack_was_cut_off_is_not_published_again() {
    let (place, url) = (Place::new(), shared_url());
    place.plugin("picky", "");
    let (network, queue) = (Network::to(&url), queue("published"));
    let mut worker = place.worker(&network.url(""), &queue, &[]);
    // A worker's first connection publishes, and its second takes and acks.
    network.keep_back(1);
    let mut task = place.start(&submit(&url, &queue, &["picky", "no", "--wait"]));
    assert_eq!(task.code(), Some(1));
    network.tear_one(1);
    worker.wait_for("ERROR dead");
    let said = assert_one_run(worker, "ERROR dead");
    assert!(said.contains("was lost with its ack"), "{said}");
    assert!(said.contains("delivered again"), "{said}");
    let status = [
        "queue", "status", "--broker", &url, "--queue", &queue, "-o", "json",
    ];
    let status = place.run(&status).exits(0).text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["ready"], &status["dead"]), (&0.into(), &1.into()));
}

#[test]
fn a_task_that_is_submitted_again_is_run_again() {
    let (place, url) = (Place::new(), shared_url());
    let queue = queue("resubmitted");
    let mut worker = place.worker(&url, &queue, &[]);
    for _ in 0..2 {
        let arguments = ["dots", ".", "--id", "same", "--wait"];
        place.run(&submit(&url, &queue, &arguments)).exits(0);
        worker.wait_for("DEBUG started");
        worker.wait_for("INFO done");
    }
}
