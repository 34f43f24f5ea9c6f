//! Tasks that are held for longer than the broker's consumer timeout.

use scutwork::broker::{Broker, Notice, SettleError};

use super::{Notices, connect_and_hear, done, fill, finish, next, queue};
use crate::support::program::Place;
use crate::support::rabbitmq::{Node, shared_url};

/// Makes consumer timeouts as short as a test wants them: two seconds, looked at all the time. Channels
/// that are open already keep theirs.
fn make_impatient(node: &Node) {
    node.control(&[
        "eval",
        "application:set_env(rabbit, consumer_timeout, 2000), application:set_env(rabbit, channel_tick_interval, 500).",
    ]);
}

async fn outlast(node: Node) {
    make_impatient(&node);
    let notices = Notices::default();
    let broker = connect_and_hear(&node.url(), &notices).await;
    let queue = queue("long");
    fill(&broker, &queue, &["1", "2", "3"]).await;
    let mut consumer = broker.consume(&queue, 3).await.unwrap();
    let long = next(&mut consumer).await;
    let quick = next(&mut consumer).await;
    let Notice::Disconnected(_, why) = notices
        .wait_for(|notice| matches!(notice, Notice::Disconnected(..)))
        .await
    else {
        unreachable!("that is what was waited for");
    };
    for word in [
        "consumer timeout of 2s",
        "takes it for 30m",
        "raise consumer_timeout in rabbitmq.conf",
        "limits.timeout",
    ] {
        assert!(why.contains(word), "{why}");
    }
    for held in [long, quick] {
        assert!(!held.hold.is_live());
        assert!(matches!(held.settle(done()).await, Err(SettleError::Lost)));
    }
    finish(&broker, consumer, &queue, &["1", "2", "3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_consumer_timeout_comes_again_and_the_log_names_limit_and_fix() {
    outlast(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_consumer_timeout_of_version_4_comes_again_too() {
    outlast(Node::start_4().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_warns_of_plugins_that_may_outlast_the_consumer_timeout_when_they_come() {
    let place = Place::new();
    place.file("scutwork.toml", "[rabbitmq]\nconsumer_timeout = \"10m\"\n");
    place.plugin("flaky", "[limits]\ntimeout = \"11m\"\n");
    let mut worker = place.start(&[
        "worker",
        "--broker",
        &shared_url(),
        "--queue",
        queue("warned").as_str(),
    ]);
    let warning = worker.wait_for("RabbitMQ takes back what is unsettled after 10m");
    assert!(warning.contains("`flaky` may run for 11m"), "{warning}");
    worker.wait_for("taking tasks from queue");
    place.plugin("echo", "[limits]\ntimeout = \"1h\"\n");
    let warning = worker.wait_for("RabbitMQ takes back what is unsettled after 10m");
    assert!(warning.contains("`echo` may run for 1h"), "{warning}");
    assert!(warning.contains("raise consumer_timeout"), "{warning}");
}

/// Has a worker run a task that lasts as long as three consumer timeouts, and then sees that it ran once.
async fn run_once(node: Node) {
    make_impatient(&node);
    let place = Place::new();
    let (url, queue) = (node.url(), queue("once"));
    let worker = place.worker(&url, queue.as_str(), &[]);
    let submit = [
        "submit",
        "dots",
        "Hello......",
        "--wait",
        "--broker",
        &url,
        "--queue",
        queue.as_str(),
    ];
    place.run(&submit).exits(0);
    worker.terminate();
    let (code, said) = worker.wait();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("consumer timeout of 2s"), "{said}");
    assert_eq!(said.matches("started").count(), 1, "{said}");
    let broker = connect_and_hear(&url, &Notices::default()).await;
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!(
        (depth.ready, depth.delayed, depth.dead),
        (0, 0, 0),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_outlasts_the_consumer_timeout_runs_once_and_is_done() {
    run_once(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_outlasts_the_consumer_timeout_of_version_4_runs_once_too() {
    run_once(Node::start_4().await).await;
}
