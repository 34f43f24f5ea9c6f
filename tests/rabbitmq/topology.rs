//! Queues as they are made, and queues that somebody else made otherwise.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, FieldTable};
use scutwork::broker::rabbitmq::{RabbitMq, RabbitMqOptions, SettlementMode};
use scutwork::broker::{Broker, Record};
use scutwork::settlement::Settlement;
use tokio::time::timeout;

use super::{
    Notices, PATIENCE, connect, dead, declare, done, message, next, options, publish, queue,
    quorum, retry, stranger,
};
use crate::support::rabbitmq::{Node, shared_url, shared_url_of_4};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_exists_with_other_arguments_is_taken_as_it_is() {
    let url = shared_url();
    let (_connection, channel) = stranger(&url).await;
    let queue = queue("hello");
    declare(&channel, queue.as_str(), false, FieldTable::default()).await;
    publish(&channel, &queue, BasicProperties::default(), b"Hello...").await;
    let broker = connect(&url).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let soon = Duration::from_millis(250);
    next(&mut consumer).await.settle(retry(soon)).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(&delivery.message.body[..], b"Hello...");
    assert_eq!(delivery.message.record.attempt, 2);
    delivery.settle(done()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_may_declare_our_queue_as_the_tutorial_does() {
    let url = shared_url();
    let broker = connect(&url).await;
    let queue = queue("task_queue");
    let _consumer = broker.consume(&queue, 10).await.unwrap();
    let (_connection, channel) = stranger(&url).await;
    declare(&channel, queue.as_str(), true, quorum()).await;
}

/// Kills the broker right after each first message to a queue that was made for it.
async fn keep_what_is_confirmed(mut node: Node) {
    let broker = connect(&node.url()).await;
    let queue = queue("new");
    broker
        .publish(&queue, vec![message("dies")], None)
        .await
        .unwrap();
    node.kill().await;
    node.restart().await;
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    next(&mut consumer).await.settle(dead()).await.unwrap();
    node.kill().await;
    node.restart().await;
    let mut pass = broker.dead_letters(&queue).await.unwrap();
    let letters = pass.next(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    pass.close().await.unwrap();
    let soon = Duration::from_secs(3);
    broker
        .publish(&queue, vec![message("waits")], Some(soon))
        .await
        .unwrap();
    node.kill().await;
    node.restart().await;
    // At least once: the broker may have died with the ack of the other.
    let comes = async {
        loop {
            let delivery = next(&mut consumer).await;
            let is_it = &delivery.message.body[..] == b"waits";
            delivery.settle(done()).await.unwrap();
            if is_it {
                break;
            }
        }
    };
    timeout(PATIENCE, comes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_to_a_new_queue_outlives_a_kill() {
    keep_what_is_confirmed(Node::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_to_a_new_queue_outlives_a_kill_on_version_4() {
    keep_what_is_confirmed(Node::start_4().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_settled_is_held_before_the_broker_would_drop_it() {
    for url in [shared_url(), shared_url_of_4()] {
        let (_connection, channel) = stranger(&url).await;
        let queue = queue("full");
        let mut full = quorum();
        full.insert("x-max-length".into(), AMQPValue::LongInt(1));
        full.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        declare(&channel, queue.as_str(), true, full).await;
        // The limit is soft: two fit.
        for body in [b"0", b"1"] {
            publish(&channel, &queue, BasicProperties::default(), body).await;
        }
        let broker = connect(&url).await;
        let mut consumer = broker.consume(&queue, 1).await.unwrap();
        let release = || Settlement::Release {
            after: Duration::ZERO,
            record: Record::default(),
        };
        // No copy has room beside the other message, so what is released goes back by itself.
        let mut held = None;
        for _ in 0..50 {
            let delivery = next(&mut consumer).await;
            let body = delivery.message.body.clone();
            let mut settling = tokio::spawn(delivery.settle(release()));
            match timeout(Duration::from_secs(3), &mut settling).await {
                Ok(settled) => settled.unwrap().unwrap(),
                Err(_) => {
                    held = Some((body, settling));
                    break;
                }
            }
        }
        let (body, settling) = held.expect("in the end the message is held");
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
        assert_ne!(got.await.unwrap().unwrap().delivery.data, &body[..]);
        timeout(PATIENCE, settling).await.unwrap().unwrap().unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!((&delivery.message.body, delivery.crashes), (&body, 0));
        delivery.settle(done()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn natively_a_retry_is_a_requeue_and_a_reject_is_the_queues_own_business() {
    let url = shared_url();
    let native = RabbitMqOptions {
        settlement: SettlementMode::Native,
        ..options(&url)
    };
    let broker = RabbitMq::connect(native, Notices::default().sink())
        .await
        .unwrap();
    let queue = queue("native");
    broker
        .publish(&queue, vec![message("1")], None)
        .await
        .unwrap();
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    next(&mut consumer)
        .await
        .settle(retry(Duration::from_secs(9)))
        .await
        .unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((again.crashes, again.message.record.attempt), (1, 1));
    again.settle(dead()).await.unwrap();
    consumer.stop().await;
    let depth = broker.depth(&queue).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.delayed, depth.dead), (0, 0, 0));
}
