//! Whether a worker takes tasks, as a probe sees it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::network::{Network, Way};
use crate::support::program::{PATIENCE, Place};
use crate::support::rabbitmq::{Node, shared_url};

/// Waits for what a probe would look for.
fn probe(file: &Path, is_there: bool) {
    let until = Instant::now() + PATIENCE;
    while file.exists() != is_there {
        assert!(Instant::now() < until, "the ready file does not follow");
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_file_is_there_while_a_worker_takes_from_all_its_queues() {
    let mut node = Node::start().await;
    let place = Place::new();
    // Left behind by a worker that was killed.
    let file = place.file("ready", "1\n");
    let url = node.url();
    let both = ["--queue", "one", "--queue", "two", "--ready-file", "ready"];
    let mut arguments = vec!["worker", "--broker", &url];
    arguments.extend(both);
    let mut worker = place.start(&arguments);
    worker.wait_for("taking tasks from queue one");
    worker.wait_for("taking tasks from queue two");
    probe(&file, true);
    place
        .run(&["queue", "pause", "--queue", "two", "--broker", &url])
        .exits(0);
    worker.wait_for("queue two is paused");
    probe(&file, false);
    place
        .run(&["queue", "resume", "--queue", "two", "--broker", &url])
        .exits(0);
    probe(&file, true);
    node.stop().await;
    worker.wait_for("not taking tasks from queue");
    probe(&file, false);
    node.restart().await;
    probe(&file, true);
    worker.terminate();
    assert_eq!(worker.code(), Some(0));
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_a_network_that_is_cut_is_not_ready_until_it_is_mended() {
    let network = Network::to(&shared_url());
    let place = Place::new();
    let queue = format!("cut-{}", fastrand::u64(..));
    place.file("scutwork.toml", "[rabbitmq]\nheartbeat = \"1s\"\n");
    let more = ["--ready-file", "ready"];
    let mut worker = place.worker(&network.url(""), &queue, &more);
    let file = place.path().join("ready");
    probe(&file, true);
    network.cut(Way::FromBroker);
    worker.wait_for("the broker stopped answering");
    probe(&file, false);
    network.heal();
    probe(&file, true);
}

#[test]
fn a_ready_file_that_cannot_be_written_stops_the_worker_before_it_starts() {
    let place = Place::new();
    place
        .run(&["up", "--ready-file", "nowhere/ready"])
        .exits(78)
        .says(&["cannot write the ready file nowhere/ready", "--ready-file"]);
}
