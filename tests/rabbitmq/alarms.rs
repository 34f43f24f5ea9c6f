//! A broker that is short of memory or disk and holds publishing back.

use std::time::Duration;

use scutwork::broker::rabbitmq::RabbitMq;
use scutwork::broker::{Broker, Notice};

use super::{Notices, connect_and_hear, done, fill, finish, message, next, queue, retry};
use crate::support::program::Place;
use crate::support::rabbitmq::Node;

const FIRST: &[&str] = &["1", "2", "3"];

/// Raises an alarm under a worker that holds deliveries, and takes it away again.
async fn hold_back(node: &Node, raise: &[&str], clear: &[&str]) {
    let notices = Notices::default();
    let broker = connect_and_hear(&node.url(), &notices).await;
    let queue = queue("alarm");
    fill(&broker, &queue, FIRST).await;
    let mut consumer = broker.consume(&queue, 3).await.unwrap();
    let retried = next(&mut consumer).await;
    let acked = [next(&mut consumer).await, next(&mut consumer).await];

    node.control(raise);
    let retrying = tokio::spawn(retried.settle(retry(Duration::from_millis(250))));
    notices
        .wait_for(|notice| matches!(notice, Notice::Blocked(why) if why.contains("low on")))
        .await;
    for delivery in acked {
        delivery.settle(done()).await.unwrap();
    }
    let place = Place::new();
    let (url, name) = (node.url(), queue.to_string());
    let mut submit = place.start(&["submit", "dots", "4", "--broker", &url, "--queue", &name]);
    let mut waiting = place.start(&[
        "submit", "dots", "5", "--broker", &url, "--queue", &name, "--delay", "1s",
    ]);
    submit.wait_for("the broker holds publishing back: low on");
    waiting.wait_for("the broker holds publishing back: low on");
    let more: &RabbitMq = &broker;
    let publish = more.publish(&queue, vec![message("6")], None);
    tokio::pin!(publish);
    let early = futures_util::future::poll_immediate(&mut publish).await;
    assert!(early.is_none() && !retrying.is_finished(), "{early:?}");

    node.control(clear);
    notices
        .wait_for(|notice| *notice == Notice::Unblocked)
        .await;
    publish.await.unwrap();
    retrying.await.unwrap().unwrap();
    for submit in [submit, waiting] {
        let (code, said) = submit.wait();
        assert_eq!(code, Some(0), "{said}");
    }
    finish(&broker, consumer, &queue, &["1", "4", "5", "6"]).await;
    broker.close().await;
}

async fn raise_alarms(node: Node) {
    let memory = "set_vm_memory_high_watermark";
    hold_back(&node, &[memory, "0.00001"], &[memory, "0.6"]).await;
    let disk = "set_disk_free_limit";
    hold_back(&node, &[disk, "900000000000000"], &[disk, "1MB"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_holds_publishing_back_and_says_so_while_acks_go_on() {
    raise_alarms(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_version_4_holds_publishing_back_and_says_so_while_acks_go_on() {
    raise_alarms(Node::start_4().await).await;
}
