//! A task queue under its operator's policy, which producers see nothing of.

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicNackOptions};
use lapin::types::FieldTable;
use scutwork::broker::Broker;
use tokio::time::timeout;

use super::{PATIENCE, connect, dead, declare, fill, next, queue, quorum, stranger};
use crate::support::rabbitmq::Node;
use crate::support::waiting::await_depth;

/// Puts a message back oftener than the README's policy allows, and looks for it among the dead letters.
async fn outlive(node: Node) {
    let url = node.url();
    let broker = connect(&url).await;
    let queue = queue("policed");
    fill(&broker, &queue, &["1"]).await;
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    consumer.stop().await;
    drop(consumer);
    let policy = format!(
        r#"{{"delivery-limit": 2, "dead-letter-exchange": "", "dead-letter-routing-key": "{queue}.dead", "dead-letter-strategy": "at-least-once", "overflow": "reject-publish"}}"#
    );
    let pattern = format!("^{queue}$");
    node.control(&[
        "set_policy",
        "limit",
        &pattern,
        &policy,
        "--apply-to",
        "queues",
    ]);

    let (_connection, channel) = stranger(&url).await;
    declare(&channel, queue.as_str(), true, quorum()).await;
    fill(&broker, &queue, &["2"]).await;
    let consuming = channel.basic_consume(
        queue.as_str().into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut stream = consuming.await.unwrap();
    for _ in 0..3 {
        let delivery = timeout(PATIENCE, stream.next()).await.unwrap();
        let put_back = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        assert!(delivery.unwrap().unwrap().nack(put_back).await.unwrap());
    }
    await_depth(&broker, &queue, |depth| depth.dead == 2).await;
    let mut pass = broker.dead_letters(&queue).await.unwrap();
    let letters = pass.next(10).await.unwrap();
    let kept = letters
        .iter()
        .find(|letter| &letter.message.body[..] == b"2");
    let cause = kept.unwrap().cause.as_ref().unwrap();
    assert_eq!(cause.reason, "delivery_limit");
    pass.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_too_often_is_kept_by_a_policy_that_no_producer_sees() {
    outlive(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_too_often_is_kept_by_a_policy_on_version_4_too() {
    outlive(Node::start_4().await).await;
}
